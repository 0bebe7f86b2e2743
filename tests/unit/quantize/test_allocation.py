"""The knapsack on paper, against brute force, and at its edges."""

from __future__ import annotations

import itertools
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeicl.errors import BudgetError, DataError
from edgeicl.quantize.allocation import Limit, allocate, merged, plan_bytes, plan_loss
from edgeicl.specs.quant_plan import Format

INT2, INT4, INT8 = (Format(bits=bits, block_size=32) for bits in (2, 4, 8))
FORMATS = (INT2, INT4, INT8, Format(bits=16), Format(bits=32))

LOSSES = {"a": {INT2: 9.0, INT4: 4.0, INT8: 1.0}, "b": {INT2: 8.0, INT4: 1.0, INT8: 0.5}}
SIZES = {"a": {INT2: 2, INT4: 4, INT8: 8}, "b": {INT2: 2, INT4: 4, INT8: 8}}


@pytest.mark.parametrize(
    ("budget_bytes", "expected"),
    [
        (4, {"a": INT2, "b": INT2}),
        (5, {"a": INT2, "b": INT2}),
        (6, {"a": INT2, "b": INT4}),
        (8, {"a": INT4, "b": INT4}),
        (12, {"a": INT8, "b": INT4}),
        (15, {"a": INT8, "b": INT4}),
        (10**9, {"a": INT8, "b": INT8}),
    ],
)
def test_on_paper(budget_bytes: int, expected: dict[str, Format]) -> None:
    """With 6 bytes the step 2 -> 4 bits gains 5 in a and 7 in b; with 10 a's step 4 -> 8 gains 3."""
    assert allocate(LOSSES, [Limit(SIZES, budget_bytes)]) == expected


def test_what_does_not_fit_names_the_smallest_size() -> None:
    with pytest.raises(BudgetError, match="fits in 3 bytes of weights; the least is 4") as caught:
        allocate(LOSSES, [Limit(SIZES, 3)])
    assert caught.value.smallest_bytes == 4


def test_more_bits_that_lose_more_are_not_taken() -> None:
    """Weights on the int4 grid have no int4 error and some int8 error."""
    assert allocate({"a": {INT4: 0.0, INT8: 0.1}}, [Limit({"a": {INT4: 4, INT8: 8}}, 100)]) == {"a": INT4}


def test_a_loss_that_is_no_number_is_refused() -> None:
    with pytest.raises(DataError, match="b in int4/block32: nan"):
        allocate({**LOSSES, "b": {INT4: float("nan")}}, [Limit(SIZES, 100)])


def test_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """HiGHS writes past Python's stdout, where JSON may be expected."""
    sys.stdout.write("before\n")
    many = {f"{i}": {f: (i + 1.37) ** 2 / 3**n for n, f in enumerate(FORMATS)} for i in range(30)}
    sizes = {unit: {f: f.bits * (100 + int(unit)) for f in FORMATS} for unit in many}
    for budget_bytes in range(10_000, 90_000, 7_001):
        allocate(many, [Limit(sizes, budget_bytes)])
    assert capfd.readouterr().out == "before\n"


def test_two_limits_on_paper() -> None:
    """Stored 12 bytes buy int8 for a and int4 for b; of what is held, a's int8 would leave b only int2."""
    held = {"a": {INT2: 2, INT4: 4, INT8: 10}, "b": {INT2: 2, INT4: 4, INT8: 10}}
    assert allocate(LOSSES, [Limit(SIZES, 12), Limit(held, 14)]) == {"a": INT8, "b": INT4}
    assert allocate(LOSSES, [Limit(SIZES, 12), Limit(held, 13)]) == {"a": INT4, "b": INT4}
    assert allocate(LOSSES, [Limit(SIZES, 5), Limit(held, 13)]) == {"a": INT2, "b": INT2}


def test_limits_that_can_only_be_kept_one_at_a_time() -> None:
    losses = {"a": {INT4: 1.0, INT8: 0.0}}
    limits = [Limit({"a": {INT4: 1, INT8: 2}}, 1), Limit({"a": {INT4: 2, INT8: 1}}, 1)]
    with pytest.raises(BudgetError, match="no choice of formats keeps all limits at once"):
        allocate(losses, limits)


@st.composite
def tables(draw: st.DrawFn) -> tuple[dict, list[Limit]]:
    losses: dict = {}
    sizes: list[dict] = [{} for _ in range(draw(st.integers(1, 2)))]
    for unit in range(draw(st.integers(1, 4))):
        offered = draw(st.lists(st.sampled_from(FORMATS), min_size=1, max_size=4, unique=True))
        largest = 10 ** draw(st.integers(1, 9))
        losses[f"u{unit}"] = {f: draw(st.floats(-1, 100, allow_nan=False)) for f in offered}
        for table in sizes:
            table[f"u{unit}"] = {f: draw(st.integers(1, largest)) for f in offered}
    choices = [dict(zip(losses, c, strict=True)) for c in itertools.product(*losses.values())]
    limits = []
    for table in sizes:
        near = draw(st.sampled_from(choices))
        limits.append(Limit(table, plan_bytes(near, table) + draw(st.integers(-1, 1))))
    return losses, limits


@settings(max_examples=150, deadline=None)
@given(tables())
def test_never_over_a_limit_and_as_good_as_brute_force(case: tuple[dict, list[Limit]]) -> None:
    losses, limits = case
    choices = [dict(zip(losses, c, strict=True)) for c in itertools.product(*losses.values())]
    fitting = [
        plan for plan in choices if all(plan_bytes(plan, limit.sizes) <= limit.limit_bytes for limit in limits)
    ]
    if not fitting:
        with pytest.raises(BudgetError):
            allocate(losses, limits)
        return
    found = allocate(losses, limits)
    assert all(plan_bytes(found, limit.sizes) <= limit.limit_bytes for limit in limits)
    best = min(plan_loss(plan, losses) for plan in fitting)
    assert plan_loss(found, losses) <= best + 1e-9 * 101
    assert allocate(losses, limits) == found


def test_merged_units_keep_the_formats_that_all_members_have() -> None:
    table = {"a": {INT2: 1, INT4: 2}, "b": {INT4: 10, INT8: 20}, "c": {INT8: 5}}
    assert merged(table, {"a": "ab", "b": "ab", "c": "c"}) == {"ab": {INT4: 12}, "c": {INT8: 5}}


def test_equal_losses_with_two_limits() -> None:
    """Nothing to choose by but the limits."""
    losses = {"a": {INT4: 1.0, INT8: 1.0}, "b": {INT4: 1.0, INT8: 1.0}}
    stored = {"a": {INT4: 1, INT8: 3}, "b": {INT4: 1, INT8: 3}}
    held = {"a": {INT4: 3, INT8: 1}, "b": {INT4: 3, INT8: 1}}
    found = allocate(losses, [Limit(stored, 4), Limit(held, 4)])
    assert sorted(f.bits for f in found.values()) == [4, 8]
