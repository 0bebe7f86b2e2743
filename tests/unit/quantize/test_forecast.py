"""A forecast beside what the quantize stage then chooses, under one limit, under two, and under none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeicl.errors import BudgetError, SpecError
from edgeicl.quantize.forecast import forecast
from edgeicl.quantize.stage import quantize
from edgeicl.specs.forecast import TargetForecast
from edgeicl.specs.prefix import write_prefix_source
from edgeicl.specs.target import Target
from edgeicl.store import Store
from edgeicl.stored import NotStoredError, ReadOnlyStore
from tests.unit.quantize.test_quantize_stage import (
    ALL,
    INT4,
    INT8,
    LARGEST_BYTES,
    _artifact_bytes,
    _plan,
    _recipe,
    _run,
    _target,
)


def foreseen(
    student: Path,
    store: Path,
    target: Target,
    *,
    trained: bool = True,
    prefix: tuple[int, ...] = (),
    **settings: Any,
) -> tuple[TargetForecast, BudgetError | None]:
    return forecast(
        _recipe(**settings),
        target,
        student=student,
        student_digest="digest" if trained else None,
        prefix=None,
        prefix_tokens=prefix,
        prefix_ids=True,
        store=ReadOnlyStore(store),
        base_folder=student,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def test_what_is_limited_is_within_5_percent_of_the_plan_that_is_chosen(student: Path, store: Path) -> None:
    by_file = [{"artifact_bytes": _artifact_bytes(student, groups)} for groups in (8_000, 15_000, 40_000)]
    by_file.append({"artifact_bytes": LARGEST_BYTES})
    ends, _ = foreseen(student, store, _target(ALL, **by_file[-1]))
    middle = (ends.smallest.resident_bytes + ends.largest.resident_bytes) // 2
    by_memory = [{"resident_bytes": middle}, {"resident_bytes": middle} | by_file[1]]
    sizes = set()
    # Whole blocks of two layers under a memory limit alone: one step is a quarter of the artifact.
    for importance, budgets in (("sensitivity", by_file + by_memory), ("jaccard", by_file + by_memory[1:])):
        for budget in budgets:
            target = _target(ALL, **budget)
            found, error = foreseen(student, store, target, importance=importance)
            plan = _plan(_run(student, store, target, importance=importance))
            assert error is None
            assert found.best is not None
            assert found.best.fits
            # What is limited is met; the other depends on which groups get the bits, here of random weights.
            for kind, predicted in (
                ("artifact_bytes", plan.predicted_artifact_bytes),
                ("resident_bytes", plan.predicted_resident_bytes),
            ):
                tolerance = 0.05 if kind in budget else 0.15
                assert getattr(found.best, kind) == pytest.approx(predicted, rel=tolerance)
            sizes.add(found.best.artifact_bytes)
    assert max(sizes) > 1.5 * min(sizes)  # negative control: no one size would do for all of these


def test_uniform_plans_and_the_ends_are_exact(student: Path, store: Path) -> None:
    found, _ = foreseen(student, store, _target(ALL, artifact_bytes=LARGEST_BYTES))
    assert [entry.label for entry in found.uniform][:2] == ["uniform int2/block32", "uniform int4/block32"]
    assert found.smallest.artifact_bytes == found.uniform[0].artifact_bytes == _artifact_bytes(student, 7_296)
    assert found.largest.artifact_bytes == found.uniform[3].artifact_bytes == _artifact_bytes(student, 77_824)
    # Three of the four are below the budget of this one, to the byte.
    edge, _ = foreseen(student, store, _target(ALL, artifact_bytes=_artifact_bytes(student, 21_888)))
    assert [entry.fits for entry in edge.uniform] == [True, True, True, False]


def test_no_plan_gives_the_error_of_the_build(student: Path, tmp_path: Path) -> None:
    both = {"artifact_bytes": 60_000, "resident_bytes": 20_000}
    for budget in ({"artifact_bytes": 20_000}, {"resident_bytes": 20_000}, both):
        target = _target(ALL, **budget)
        found, error = foreseen(student, tmp_path, target)
        with pytest.raises(BudgetError) as caught:
            _run(student, tmp_path, target)
        assert error is not None
        assert str(error) == str(caught.value) == found.problem
        assert error.smallest_bytes == caught.value.smallest_bytes
        assert found.best is None
        assert not found.uniform[0].fits


def test_what_has_to_be_measured_is_counted(student: Path, tmp_path: Path) -> None:
    target = _target([INT4, INT8], artifact_bytes=LARGEST_BYTES)
    before, _ = foreseen(student, tmp_path, target)
    assert (before.groups, before.to_measure, before.measured) == (9, 18, 0)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NotStoredError) as missing:
        quantize(
            _recipe(),
            target,
            student=student,
            student_digest="digest",
            store=ReadOnlyStore(tmp_path),
            base_folder=student,
        )
    assert missing.value.stage == "importance"
    _run(student, tmp_path, target)
    more, _ = foreseen(student, tmp_path, _target(ALL, artifact_bytes=LARGEST_BYTES))
    assert (more.to_measure, more.measured) == (18, 18)
    untrained, _ = foreseen(student, tmp_path, target, trained=False)
    assert untrained.to_measure == 18


def test_a_prefix_takes_its_bytes_and_a_given_plan_is_told_as_such(
    student: Path, store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = _target(ALL, artifact_bytes=LARGEST_BYTES)
    path = tmp_path / "prefix"
    write_prefix_source(path, [np.array([0, 20, 3, 21, 4])])
    built = quantize(
        _recipe(),
        target,
        student=student,
        student_digest="digest",
        prefix=path,
        store=Store(store),
        base_folder=student,
    )
    found, _ = foreseen(student, store, target, trained=False, prefix=(5,))
    assert found.prefix_bytes > 0
    assert found.best is not None
    assert found.best.artifact_bytes == _plan(built).predicted_artifact_bytes

    written = _plan(_run(student, store, _target([INT4], artifact_bytes=LARGEST_BYTES)))
    (tmp_path / "plan.json").write_text(written.model_dump_json())
    given, _ = foreseen(student, store, target, trained=False, plan=str(tmp_path / "plan.json"))
    assert given.best is None
    assert given.given is not None
    assert (given.given.label, given.given.fits) == ("given", True)
    assert given.given.artifact_bytes == written.predicted_artifact_bytes
    assert "other weights" not in caplog.text
    less = written.predicted_artifact_bytes - 1
    over, error = foreseen(student, store, _target(ALL, artifact_bytes=less), plan=str(tmp_path / "plan.json"))
    assert error is not None
    assert f"or edit the plan {tmp_path / 'plan.json'}: fewer bits" in error.next_step
    assert "smaller student" not in error.next_step
    assert over.given is not None
    assert not over.given.fits
    assert over.smallest.fits is None  # of no one plan
    assert over.smallest.artifact_bytes <= (over.artifact_limit_bytes or 0)  # another plan would fit
    with pytest.raises(SpecError):
        foreseen(
            student, store, _target([INT8], artifact_bytes=LARGEST_BYTES), plan=str(tmp_path / "plan.json")
        )
