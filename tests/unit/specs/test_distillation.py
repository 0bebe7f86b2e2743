"""No key of a recipe's distill section is ignored in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeicl.errors import SpecError
from edgeicl.specs.distillation import Distill
from edgeicl.specs.loading import parse_spec
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.tuning_task import TuningTask

REPOSITORY = Path(__file__).parents[3]
CONTEXT = {"teacher": {"model": "builtin:nli-teacher"}, "student": {"model": "builtin:nli-student"}}
META_KD = CONTEXT | {"method": "meta_kd", "meta_kd": {"domain": "a", "domain_column": "b"}}


def test_every_broken_rule_is_told_at_once_with_its_line() -> None:
    text = (REPOSITORY / "recipes/icl-meta.yaml").read_text().replace("method: icl", "method: meta_kd")
    text = text.replace("kl: 1.0, ce: 1.0", "kl: 1.0, lm: 0.5").replace(
        "balanced", "sets_per_student: 2, balanced"
    )
    with pytest.raises(SpecError) as told:
        parse_spec(text, Recipe, source="sample")
    lines = text.splitlines()
    found = {problem.key: lines[(problem.line or 0) - 1].strip() for problem in told.value.problems}
    assert found["distill.icl"] == "icl:"
    assert found["distill.objective.lm"].startswith("objective:")
    assert found["distill.demonstrations.sets_per_student"].startswith("demonstrations:")
    assert "distill.meta_kd" in found


def test_what_only_the_command_line_has_wrong_is_to_be_corrected_there() -> None:
    text = (REPOSITORY / "recipes/quickstart.yaml").read_text()
    with pytest.raises(SpecError) as told:
        parse_spec(text, Recipe, source="sample", overrides=["task.train=file:x", "targets=tiny-cpu"])
    assert "command line" in told.value.next_step
    expected = {problem.key: problem.expected for problem in told.value.problems}
    assert expected == {
        "task.train": 'expected a section: {source: "file:x"}',
        "targets": "expected a list: [tiny-cpu]",
    }
    with pytest.raises(SpecError, match="edgeicl check sample"):
        parse_spec(text.replace("seeds", "sees"), Recipe, source="sample", overrides=["seed=x"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"meta_kd": META_KD["meta_kd"]}, "meta_kd: method context does not read it; expected method meta_kd"),
        ({"icl": {"votes": 2}}, "icl: method context does not read it; expected method icl"),
        ({"on_policy": {"tokens": 3}}, "on_policy: set, and objective.on_policy is 0"),
        (
            {"student": CONTEXT["student"] | {"lora": {"rank": 4}}},
            "student.lora: set, and student.adapter is none",
        ),
        (
            META_KD | {"transfer_examples": 5},
            "transfer_examples: method meta_kd does not read it; expected method context or",
        ),
        (
            {"method": "none", "student": CONTEXT["student"] | {"adapter": "lora"}},
            "student.adapter: method none does not read it",
        ),
    ],
)
def test_a_key_that_the_method_does_not_read_is_refused(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Distill.model_validate(CONTEXT | changes)


def test_what_another_method_reads_may_stand_where_none_is_asked_for() -> None:
    kept = Distill.model_validate(META_KD | {"method": "none"})
    assert kept.meta_kd is not None


@pytest.mark.parametrize("values", [CONTEXT, META_KD, CONTEXT | {"method": "none"}])
def test_defaults_written_out_are_no_change(values: dict[str, Any]) -> None:
    resolved = Distill.model_validate(values)
    assert Distill.model_validate(resolved.model_dump(mode="json")) == resolved


def test_only_the_task_itself_may_be_a_template_of_lama() -> None:
    with pytest.raises(ValueError, match=r"only task\.pattern is one"):
        TuningTask.model_validate(
            {"pattern": "[X] is in [Y] .", "train": {"source": "builtin:nli", "split": "train"}}
        )
