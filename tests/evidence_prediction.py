"""Other forms of the predictor on the same held-out chips: the table of docs/results/prediction.md.

python -m tests.evidence_prediction
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import Ridge

from edgeicl.bench.prediction.efficiency import RIDGES
from edgeicl.bench.prediction.holdout import chip_errors, relative
from edgeicl.bench.prediction.published import PublishedSpeed, published_speeds
from edgeicl.report.tables import markdown

Array = NDArray[np.float64]
FAMILIES = ("onnx", "executorch", "mnn", "litert", "t-mac")


def size(s: PublishedSpeed) -> list[float]:
    return [np.log(s.token_bytes / 1e9)]


def bits(s: PublishedSpeed) -> list[float]:
    return [float(5 <= s.bits <= 7), float(7 < s.bits <= 9), float(s.bits > 9)]


def memory(s: PublishedSpeed) -> list[float]:
    return [np.log(s.memory_bytes_per_second / 50e9)]


def engine(s: PublishedSpeed) -> list[float]:
    return [float(family in s.engine.lower()) for family in FAMILIES]


FORMS: dict[str, Sequence[Callable[[PublishedSpeed], list[float]]]] = {
    "a constant share": (),
    "slope by bytes, share by bits": (size, bits),
    "slope by bytes, slope by bandwidth": (size, memory),
    "slope by bytes, share by engine": (size, engine),
    "all of them": (size, bits, memory, engine),
}


def matrix(form: Sequence[Callable[[PublishedSpeed], list[float]]], speeds: Sequence[PublishedSpeed]) -> Array:
    return np.array([[0.0, *(value for part in form for value in part(s))] for s in speeds])


def held_out(features: Array, target: Array, chips: NDArray[np.str_], fit: Callable[..., Array]) -> Array:
    errors = np.empty(len(target))
    for chip in dict.fromkeys(chips):
        own = chips == chip
        errors[own] = fit(features[~own], target[~own], chips[~own], features[own]) - target[own]
    return errors


def nested_ridge(features: Array, target: Array, chips: NDArray[np.str_], asked: Array) -> Array:
    """The ridge that errs least on chips held out among the given ones."""

    def one(ridge: float, x: Array, y: Array, of: NDArray[np.str_], at: Array) -> Array:
        weights = np.array([(of == chip).sum() ** -0.5 for chip in of])
        found: Array = Ridge(ridge).fit(x, y, sample_weight=weights / weights.mean()).predict(at)
        return found

    def error(ridge: float) -> float:
        found = held_out(features, target, chips, lambda x, y, of, at: one(ridge, x, y, of, at))
        return float(np.abs(found).mean())

    return one(min(RIDGES, key=error), features, target, chips, asked)


def forest(features: Array, target: Array, chips: NDArray[np.str_], asked: Array) -> Array:
    found: Array = (
        RandomForestRegressor(300, min_samples_leaf=2, random_state=0).fit(features, target).predict(asked)
    )
    return found


def main() -> None:
    """Prints the table."""
    speeds = published_speeds()
    target = np.log([s.bandwidth / s.memory_bytes_per_second for s in speeds])
    chips = np.array([s.soc for s in speeds])
    errors = {"slope by bytes (used)": chip_errors(speeds)}
    for name, form in FORMS.items():
        errors[name] = held_out(matrix(form, speeds), target, chips, nested_ridge)
    errors["random forest of all of them"] = held_out(
        matrix(FORMS["all of them"], speeds), target, chips, forest
    )
    rows = [
        (name, f"{np.median(relative(found)):.1%}", f"{np.quantile(relative(found), 0.9):.1%}")
        for name, found in errors.items()
    ]
    sys.stdout.write(markdown(("form", "median error", "p90"), rows) + "\n")


if __name__ == "__main__":
    main()
