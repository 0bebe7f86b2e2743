"""What a recipe of method `icl` may say."""

from __future__ import annotations

from typing import Any

import pytest

from edgeicl.errors import SpecError
from edgeicl.specs.loading import parse_spec
from edgeicl.specs.recipe import Recipe

RECIPE = """
version: 1
name: sample
task:
  pattern: "{premise} so {hypothesis}?"
  verbalizers: {entailment: " Yes", contradiction: " No"}
  train: {source: "builtin:nli/action", split: train}
  in_domain: {source: "builtin:nli/action", split: test}
distill:
  method: icl
  teacher: {model: "builtin:nli-teacher", load_in: LOAD}
  student: {model: "builtin:nli-student"}
  objective: {OBJECTIVE}
  icl: {ICL}
"""
OTHER = 'tasks: [{train: {source: "builtin:nli/today", split: train}}]'


def parse(icl: str = OTHER, *, objective: str = "kl: 1.0", load: str = "fp32") -> Recipe:
    text = RECIPE.replace("OBJECTIVE", objective).replace("ICL", icl).replace("LOAD", load)
    return parse_spec(text, Recipe, source="sample")


def test_both_losses_count_unless_told_otherwise() -> None:
    assert parse().distill.objective.ce == 1.0
    assert parse(objective="ce: 0.0").distill.objective.ce == 0.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"icl": "paradigm: meta"}, "distill.icl.tasks  .*empty; expected the tasks"),
        ({"icl": OTHER.replace("today", "action")}, "which is the target task"),
        (
            {"icl": OTHER.replace("today", "action").replace("train}", "validation}")},
            "which is the target task",
        ),
        ({"icl": "tasks: [TASK, TASK]".replace("TASK", OTHER[8:-1])}, "stands there twice"),
        ({"objective": "{kl: 0.0, ce: 1.0}"[1:-1]}, "learns from the teacher"),
        ({"objective": "lm: 1.0"}, "expected plain text in distill.text"),
        ({"load": "8bit"}, "teacher_epochs"),
        ({"icl": OTHER + ", votes: 0"}, "votes"),
        ({"icl": OTHER + ", train_examples: 16"}, r"icl.train_examples is 16, .* multitask alone"),
        ({"icl": OTHER + ", dev_examples: 16"}, r"icl.dev_examples is 16, .* multitask alone"),
        (
            {"icl": OTHER + ", teacher_epochs: 0, teacher_learning_rate: 0.5"},
            r"icl.teacher_learning_rate is 0.5, .* teacher_epochs above 0 alone",
        ),
    ],
)
def test_what_can_not_run_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        parse(**changes)


def test_a_teacher_in_8_bits_may_teach_as_it_is() -> None:
    assert parse(OTHER + ", teacher_epochs: 0", load="8bit").distill.icl.teacher_epochs == 0


def test_multitask_may_have_no_further_task() -> None:
    assert parse("paradigm: multitask").distill.icl.tasks == ()
