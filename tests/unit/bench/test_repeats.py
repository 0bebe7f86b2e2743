"""Whether ratios repeat: on paper, on a computer that was not quiet, and where a rival fell out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edgeicl.bench.compare import paired
from edgeicl.bench.repeats import is_quiet, repeated
from edgeicl.report.repeat_facts import repeat_tables
from edgeicl.specs.comparison import Comparison, RepeatedComparison, Round
from tests.unit.bench.test_compare_command import comparison


def run_with(decode: float, *, other_work: Sequence[float] = (0.01, 0.02), rivals: bool = True) -> Comparison:
    """A comparison in which ours decodes `decode` times as fast as the rival."""
    base = comparison()
    fast: Round = base.artifacts[0].rounds[0].model_copy(update={"decode_tokens_per_second": 100 * decode})
    ours = base.artifacts[0].model_copy(update={"rounds": (fast,)})
    pairings = (paired(ours, base.rivals[0]),) if rivals else ()
    return base.model_copy(update={"artifacts": (ours,), "pairings": pairings, "other_work": tuple(other_work)})


def decode_of(found: RepeatedComparison) -> tuple[float, float, bool]:
    (entry,) = (each for each in found.repeats if each.what == "decode")
    return entry.median, entry.deviation, entry.repeats


def test_the_farthest_run_decides() -> None:
    found = repeated([run_with(ratio) for ratio in (4.0, 4.1, 3.84)])
    assert decode_of(found) == (pytest.approx(4.0), pytest.approx(0.04), True)
    median, deviation, repeats = decode_of(repeated([run_with(ratio) for ratio in (4.0, 4.1, 3.76)]))
    assert (median, deviation, repeats) == (pytest.approx(4.0), pytest.approx(0.06), False)


def test_nothing_repeats_on_a_busy_computer() -> None:
    found = repeated([run_with(4.0), run_with(4.0, other_work=(0.02, 0.5))])
    assert found.quiet is False
    assert decode_of(found) == (4.0, 0.0, False)
    assert "other processes took up to 50%" in found.notes[0]


def test_a_system_that_does_not_tell() -> None:
    runs = [run_with(4.0, other_work=()), run_with(4.0)]
    assert is_quiet(runs) is None
    assert "is not known" in repeated(runs).notes[0]
    assert decode_of(repeated(runs))[2] is True


def test_a_rival_that_fell_out_has_no_verdict() -> None:
    assert repeated([run_with(4.0), run_with(4.0, rivals=False)]).repeats == ()


def test_tables_and_json() -> None:
    found = repeated([run_with(4.0), run_with(4.1)])
    assert RepeatedComparison.model_validate_json(found.model_dump_json()) == found
    tables = repeat_tables(found)
    assert [facts.heading for facts in tables] == ["Ratios of 2 runs", "Comparison", "Ratios of a"]
    assert all(len(row) == len(facts.headers) for facts in tables for row in facts.rows)
    assert ("a", "b", "decode", "4.00", "4.10", "4.05", "1.2 %", "yes") in tables[0].rows
