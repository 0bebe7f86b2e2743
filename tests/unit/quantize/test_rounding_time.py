"""Time of rounding: in proportion to the weights, and none for floating point."""

from __future__ import annotations

import pytest

from edgeicl.quantize.rounding_time import rounding_seconds
from edgeicl.quantize.solver import SolverName
from edgeicl.specs.quant_plan import Format

INT4, FP32 = Format(bits=4, block_size=32), Format(bits=32)


@pytest.mark.parametrize(("solver", "wider"), [("rtn", 2), ("hqq", 2), ("gptq", 4)])
def test_grows_with_the_weights(solver: SolverName, wider: int) -> None:
    one = rounding_seconds([(512, 512)], [INT4], solver=solver)
    assert one > 0
    assert rounding_seconds([(1024, 512)], [INT4], solver=solver) == pytest.approx(2 * one)
    assert rounding_seconds([(512, 1024)], [INT4], solver=solver) == pytest.approx(wider * one)
    assert rounding_seconds([(512, 512)] * 3, [INT4, FP32], solver=solver) == pytest.approx(3 * one)


def test_gptq_goes_through_the_columns_of_few_rows_too() -> None:
    few, many = (rounding_seconds([(rows, 128)], [INT4], solver="gptq") for rows in (8, 256))
    assert few == pytest.approx(many)
    assert rounding_seconds([(8, 256)], [INT4], solver="gptq") == pytest.approx(2 * few)


def test_floating_point_is_not_rounded() -> None:
    assert rounding_seconds([(64, 256)], [FP32, Format(bits=16)], solver="rtn") == 0
