"""How long it takes on this computer to round weights, timed on a few rows of each format."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import cache

import numpy as np

from edgeicl.numerics.gptq import gptq
from edgeicl.quantize.solver import EACH_ALONE, SolverName
from edgeicl.quantize.stored_weights import stored_values
from edgeicl.specs.quant_plan import Format

_ROWS, _COLUMNS = 256, 512  # two blocks of the largest kind at least


def rounding_seconds(
    shapes: Iterable[tuple[int, int]], formats: Iterable[Format], *, solver: SolverName
) -> float:
    """About how long matrices of `shapes` [N, K] take to be rounded once in each of `formats`.

    GPTQ goes column by column, however few rows there are, and its corrections of later columns grow with K²;
    what it spends on the inputs' moments is left out.
    """

    def samples(rows: int, columns: int) -> float:
        high, wide = rows / _ROWS, columns / _COLUMNS
        return high * wide if solver != "gptq" else max(1.0, high) * max(wide, wide**2)

    work = sum(samples(*shape) for shape in shapes)
    return work * sum(_sample_seconds(format_, solver) for format_ in formats if format_.quantized)


@cache
def _sample_seconds(format_: Format, solver: SolverName) -> float:
    sample = np.random.default_rng(0).standard_normal((_ROWS, _COLUMNS)).astype(np.float32)
    started = time.perf_counter()
    if solver == "gptq":
        gptq(sample, format_, np.eye(_COLUMNS))
    else:
        stored_values(sample, format_, EACH_ALONE[solver])
    return time.perf_counter() - started
