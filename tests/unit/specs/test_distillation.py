"""No key of a recipe's distill section is ignored in silence."""

from __future__ import annotations

from typing import Any

import pytest

from edgeicl.specs.distillation import Distill
from edgeicl.specs.tuning_task import TuningTask

CONTEXT = {"teacher": {"model": "builtin:nli-teacher"}, "student": {"model": "builtin:nli-student"}}
META_KD = CONTEXT | {"method": "meta_kd", "meta_kd": {"domain": "a", "domain_column": "b"}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"meta_kd": META_KD["meta_kd"]}, "method context has no meta_kd; expected method meta_kd"),
        ({"icl": {"votes": 2}}, "method context has no icl; expected method icl"),
        ({"on_policy": {"tokens": 3}}, "on_policy is set and objective.on_policy is 0"),
        (
            {"student": CONTEXT["student"] | {"lora": {"rank": 4}}},
            "student.lora is set and student.adapter is none",
        ),
        (
            META_KD | {"transfer_examples": 5},
            "method meta_kd has no transfer_examples; expected method context or",
        ),
        (
            {"method": "none", "student": CONTEXT["student"] | {"adapter": "lora"}},
            "method none has no student.adapter",
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
