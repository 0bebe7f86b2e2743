"""Limits that nothing keeps: which are named, and that what is told to be enough is enough, and no more."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeicl.errors import BudgetError
from edgeicl.quantize.budget import WeightBudget
from edgeicl.quantize.conflicts import require_any
from edgeicl.quantize.first_token import FirstTokenTime
from edgeicl.quantize.latency import DecodeTime
from edgeicl.quantize.plan_space import PlanSpace
from edgeicl.specs.quant_plan import Format

SMALL, HELD, FAST = (Format(bits=bits, block_size=32) for bits in (2, 4, 8))
FORMATS = (SMALL, HELD, FAST)
OTHER_BYTES, RESIDENT_REST = 120, 4400
NAMES = ("budget.artifact_bytes", "budget.resident_bytes", "budget.decode_ms", "budget.first_token_ms")


def space(
    artifact: int | None = None,
    resident: int | None = None,
    decode_ms: float | None = None,
    first_ms: float | None = None,
    *,
    rows: list[list[int]],
    copy_bytes: int = 0,
    others: tuple[PlanSpace, ...] = (),
) -> PlanSpace:
    """Groups whose bytes stored and held, bytes read and microseconds of a prompt are those of each format.

    `rows` has, for each group, the four figures of each format in turn. artifact = stored + 120, resident =
    held + 4400; a token takes a millisecond for each byte read, a prompt one for each thousand.
    """
    tables = [
        {f"g{number}": dict(zip(FORMATS, row[kind::4], strict=True)) for number, row in enumerate(rows)}
        for kind in range(4)
    ]
    stored, held, reads, nanoseconds = tables
    microseconds = {group: {f: 1000 * n for f, n in each.items()} for group, each in nanoseconds.items()}
    return PlanSpace(
        FORMATS,
        stored,
        held,
        {group: group for group in stored},
        WeightBudget("phone", artifact, resident, 100, 20, 250, 50, 4000, prompt_copy_bytes=copy_bytes),
        decode=DecodeTime("phone", reads, 0, 1000.0, 0.0, decode_ms),
        first=FirstTokenTime("phone", 8, microseconds, 0.0, first_ms),
        prompt_format=FAST if copy_bytes else None,
        others=others,
    )


# one group: 2 bits are smallest stored, 4 held, 8 bits are fastest
ONE = [[10, 30, 30, 30, 20, 10, 20, 20, 30, 20, 10, 10]]


def refused(*spaces: PlanSpace) -> BudgetError:
    with pytest.raises(BudgetError) as caught:
        require_any(spaces)
    return caught.value


def test_what_is_kept_is_no_conflict() -> None:
    require_any([space(130, 4430, 30.0, 0.03, rows=ONE)])
    require_any([space(rows=ONE)])
    require_any([space(129, rows=ONE), space(130, rows=ONE)])


def test_one_limit_is_told_with_its_parts() -> None:
    error = refused(space(129, rows=ONE))
    assert re.search(
        r"artifact_bytes is 129 .* but the smallest plan of its formats takes 130 bytes", str(error)
    )
    assert "weight groups 10, other tensors 100, other files 20" in str(error)
    assert "to at least 130, offer it formats with fewer bits" in error.next_step
    assert error.smallest_bytes == 130


def test_one_limit_beside_others_is_told_what_they_leave() -> None:
    """120 is beyond any plan; a token in 10 ms needs 8 bits, which take 30 bytes more."""
    error = refused(space(120, None, 10.0, rows=ONE))
    assert "the smallest plan of its formats that keeps the other limits takes 150 bytes" in str(error)
    assert error.smallest_bytes == 150
    require_any([space(150, None, 10.0, rows=ONE)])


def test_two_limits_are_told_with_what_either_would_be() -> None:
    """2 bits for the file, 4 for the memory: 130 and 4430, or 140 and 4410."""
    require_any([space(130, 4430, rows=ONE)])
    error = refused(space(139, 4429, rows=ONE))
    assert str(error).startswith(
        "target phone: no plan keeps budget.artifact_bytes 139 and budget.resident_bytes 4429 at once"
    )
    assert "budget.artifact_bytes to at least 140" in error.next_step
    assert "or budget.resident_bytes to at least 4430" in error.next_step
    assert error.smallest_bytes == 140
    require_any([space(140, 4429, rows=ONE)])
    require_any([space(139, 4430, rows=ONE)])


def test_limits_that_are_no_matter_are_not_named() -> None:
    error = refused(space(1000, 4415, 10.0, rows=ONE))
    assert "no plan keeps budget.resident_bytes 4415 and budget.decode_ms 10 at once" in str(error)
    assert "artifact_bytes" not in str(error)
    assert "resident_bytes to at least 4420" in error.next_step
    assert "decode_ms to at least 20.06" in error.next_step


def test_three_limits_of_which_any_two_are_kept() -> None:
    """Each format is too much for one of them."""
    rows = [[1, 1, 2, 1, 1, 2, 1, 1, 2, 1, 1, 1]]
    error = refused(space(121, 4401, 1.0, rows=rows))
    assert "budget.artifact_bytes 121, budget.resident_bytes 4401 and budget.decode_ms 1 at once" in str(error)
    assert error.next_step.count("to at least") == 3


def test_conflicts_apart_are_all_told_and_raised_together() -> None:
    """The file is too small for any plan, and memory and time for all plans: two limits have to be raised."""
    error = refused(space(129, 4415, 10.0, rows=ONE))
    assert (
        "no plan keeps budget.artifact_bytes 129; nor budget.resident_bytes 4415 and budget.decode_ms 10 at"
        in str(error)
    )
    assert " and " in error.next_step.split(", or ")[0]


def test_a_copy_counts_where_it_is_what_keeps_the_other_limits() -> None:
    """Behind a first token of 5 us only the space with a copy is left: its file is 200 bytes larger."""
    slow = [[10, 10, 10, 30] * 3]
    fast = [[10, 10, 10, 5] * 3]
    both = space(
        140, None, None, 0.005, rows=slow, others=(space(140, None, None, 0.005, rows=fast, copy_bytes=200),)
    )
    error = refused(both)
    assert "no plan keeps budget.artifact_bytes 140 and budget.first_token_ms 0.005 at once" in str(error)
    assert "artifact_bytes to at least 330" in error.next_step
    assert "first_token_ms to at least 0.03009" in error.next_step


def test_a_copy_that_only_the_other_limit_wants_is_no_smallest_plan() -> None:
    """Without the copy 130 bytes would do; a first token of 5 us leaves the space with it alone."""
    copied = space(120, None, None, 0.005, rows=[[10, 10, 10, 5] * 3], copy_bytes=200)
    error = refused(space(120, None, None, 0.005, rows=[[10, 10, 10, 30] * 3], others=(copied,)))
    assert (
        "the smallest plan of its formats with a second copy in int8/block32 that keeps the other limits takes"
        in str(error)
    )
    assert error.smallest_bytes == 330


def test_a_space_that_lacks_a_limit_is_bound_by_the_others() -> None:
    """A token's time isn't known there: only its bytes are in the way."""
    unknown = replace(space(120, rows=ONE), decode=None)
    error = refused(space(129, None, 5.0, rows=ONE), unknown)
    assert "no plan keeps budget.artifact_bytes" in str(error) or "budget.artifact_bytes is" in str(error)
    assert error.smallest_bytes == 130


FIGURES = st.lists(st.lists(st.integers(1, 60), min_size=12, max_size=12), min_size=1, max_size=3)
LIMITS = st.tuples(
    st.none() | st.integers(100, 260),
    st.none() | st.integers(4390, 4560),
    st.none() | st.integers(1, 150).map(float),
    st.none() | st.integers(1, 150).map(lambda n: n / 1000),
)


def _kept(spaces: list[PlanSpace]) -> bool:
    """By trying every plan."""
    for each in spaces:
        groups = list(each.stored)
        for formats in product(FORMATS, repeat=len(groups)):
            plan = dict(zip(groups, formats, strict=True))
            if all(limit.kept_by(plan) for limit in each.limits):
                return True
    return False


@settings(deadline=None, max_examples=150)
@given(rows=FIGURES, limits=LIMITS, copied=st.booleans())
def test_whatever_is_told_to_be_enough_is_enough(
    rows: list[list[int]], limits: tuple[int | None, int | None, float | None, float | None], copied: bool
) -> None:
    def spaces(asked: tuple[int | None, int | None, float | None, float | None]) -> list[PlanSpace]:
        plain = space(*asked, rows=rows)
        if not copied:
            return [plain]
        faster = [[*(max(1, n // 4) if at % 4 == 3 else n for at, n in enumerate(row))] for row in rows]
        return [replace(plain, others=(space(*asked, rows=faster, copy_bytes=40),))]

    every = [each for one in spaces(limits) for each in one.alternatives]
    if _kept(every):
        require_any(spaces(limits))
        return
    error = refused(*spaces(limits))
    ways = error.next_step.split(", or ")
    assert "to at least" in ways[0]
    for way in ways:
        told = {
            name: float(number)
            for name, number in re.findall(r"(budget\.\w+) (?:of target phone )?to at least ([\d.e+-]+\d)", way)
        }
        if not told:
            continue
        raised = tuple(
            (type(value)(told[name]) if name in told else value) if value is not None else None
            for name, value in zip(NAMES, limits, strict=True)
        )
        assert _kept([each for one in spaces(raised) for each in one.alternatives]), (way, limits)
        for number, name in enumerate(NAMES[:2]):
            if name in told and len(told) == 1:  # a byte less is too little
                less = list(raised)
                less[number] = int(told[name]) - 1
                assert not _kept([each for one in spaces(tuple(less)) for each in one.alternatives])
