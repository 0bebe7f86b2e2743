"""How far predictions are off on devices that they were not calibrated on: `edgeicl predict --validate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt

from edgeicl.bench.prediction.efficiency import by_soc, fitted
from edgeicl.bench.prediction.published import PublishedSpeed, left_out, published_speeds
from edgeicl.specs.prediction import HoldOut, Method, Validation

Errors = npt.NDArray[np.float64]

_WHAT = {
    "published": "every published speed in turn, predicted from the median bandwidth of the others of its chip",
    "probe": "every published speed in turn, predicted from one of another model or other bits on the same "
    "device and engine, the nearest in bytes a token",
}


def validation() -> Validation:
    """All methods; deterministic."""
    speeds = published_speeds()
    whole = fitted(speeds)
    return Validation(
        hold_outs=tuple(hold_out(method) for method in ("specification", "published", "probe")),
        left_out=left_out(),
        share=whole.share,
        slope=whole.slope,
        any_probe_median_error=any_probe_error(speeds),
        shuffled_median_error=float(np.median(relative(chip_errors(exchanged(speeds))))),
    )


@cache
def hold_out(method: Method) -> HoldOut:
    """The errors of one method."""
    speeds = published_speeds()
    if method == "specification":
        errors, used = chip_errors(speeds), list(speeds)
        what = "every chip in turn, predicted from its memory's specified bandwidth and the other chips' speeds"
        groups = [speed.soc for speed in speeds]
    else:
        known = known_errors(speeds, method)
        errors, used = np.array(list(known.values())), [speeds[index] for index in known]
        what = _WHAT[method]
        groups = [speed.soc for speed in used]
    low, high = np.exp(np.quantile(-errors, [0.1, 0.9]))
    return HoldOut(
        method=method,
        what=what,
        points=len(errors),
        devices=len({speed.device for speed in used}),
        socs=len(set(groups)),
        median_error=float(np.median(relative(errors))),
        p90_error=float(np.quantile(relative(errors), 0.9)),
        low_factor=float(low),
        high_factor=float(high),
        coverage=coverage(errors, groups),
    )


def chip_errors(speeds: Sequence[PublishedSpeed]) -> Errors:
    """Logarithms of predicted over published, each chip predicted by the others."""
    found: dict[int, float] = {}
    for soc, own in by_soc(speeds).items():
        others = fitted([speed for speed in speeds if speed.soc != soc])
        for speed, error in zip(own, others.log_errors(own), strict=True):
            found[id(speed)] = float(error)
    return np.array([found[id(speed)] for speed in speeds])


def known_errors(speeds: Sequence[PublishedSpeed], method: Method) -> dict[int, float]:
    """Index -> error of the speeds that can be predicted from others of their own chip or device.

    One that repeats the measurement (same device, engine, model and bits) is no other.

    `published`: from the median bandwidth of all others of the chip, as shipped targets are calibrated.
    `probe`: from one other of the same device and engine, the nearest in bytes a token.
    """
    found = {}
    for index, speed in enumerate(speeds):
        others = [o for o in speeds if o.soc == speed.soc and _measured(o) != _measured(speed)]
        if method == "probe":
            others = [o for o in others if (o.device, o.engine) == (speed.device, speed.engine)]
            others.sort(key=lambda o: (abs(np.log(o.token_bytes / speed.token_bytes)), o.model, o.bits))
            others = others[:1]
        if others:
            bandwidth = float(np.median([other.bandwidth for other in others]))
            found[index] = float(np.log(bandwidth / speed.bandwidth))
    return found


def _measured(speed: PublishedSpeed) -> tuple[str, str, str, float]:
    return speed.device, speed.engine, speed.model, speed.bits


def any_probe_error(speeds: Sequence[PublishedSpeed]) -> float:
    """Median error where the one other speed of the device and engine has the same bits, and any size."""
    errors = [
        other.bandwidth / speed.bandwidth - 1
        for speed in speeds
        for other in speeds
        if _measured(other) != _measured(speed)
        and (other.device, other.engine, other.bits) == (speed.device, speed.engine, speed.bits)
    ]
    return float(np.median(np.abs(errors)))


def coverage(log_errors: Errors, groups: Sequence[str]) -> float | None:
    """Share of points in intervals of 10 to 90 % that were made of the other groups' errors."""
    if len(set(groups)) < 3:
        return None
    names = np.array(groups)
    inside = []
    for group in dict.fromkeys(groups):
        low, high = np.quantile(log_errors[names != group], [0.1, 0.9])
        inside += [low <= error <= high for error in log_errors[names == group]]
    return float(np.mean(inside))


def relative(log_errors: Errors) -> Errors:
    """|predicted / published - 1|."""
    result: Errors = np.abs(np.exp(log_errors) - 1)
    return result


def exchanged(speeds: Sequence[PublishedSpeed]) -> list[PublishedSpeed]:
    """Negative control: each chip with the specified bandwidth of another."""
    own = {soc: of[0].memory_bytes_per_second for soc, of in by_soc(speeds).items()}
    given = dict(zip(own, np.random.default_rng(0).permutation(list(own.values())), strict=True))
    return [replace(speed, memory_bytes_per_second=float(given[speed.soc])) for speed in speeds]
