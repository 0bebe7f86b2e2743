"""What `edgeicl pretrain` refuses before it trains; the shipped recipes pass."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from edgeicl.errors import SpecError
from edgeicl.specs.catalog import load_pretraining
from edgeicl.specs.loading import parse_spec
from edgeicl.specs.pretraining import Pretraining, TaskName
from edgeicl.tasks.nli_family import TASKS

RECIPES = Path(__file__).parents[3] / "recipes" / "pretrain"
TEACHER = (RECIPES / "nli-teacher.yaml").read_text()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_recipes(path: Path) -> None:
    assert load_pretraining(path).name == path.stem


def test_the_names_of_the_tasks_are_those_of_the_family() -> None:
    assert get_args(TaskName) == tuple(TASKS)


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("tasks: [entailment]", "tasks: [entailmnt]", r"'entailmnt'; did you mean 'entailment'\?"),
        (
            "named_share: 0.98",
            "named_share: 0.99",
            r"named_share and story_share together 1\.01; expected at most 1",
        ),
        ("heads: 4", "heads: 3", r"width 128; expected an even multiple of heads, which are 3"),
        ("width: 128, heads: 4", "width: 129, heads: 3", r"width 129; expected an even multiple of heads"),
        ("positions: 320", "positions: 200", r"phase 5: texts of 13 examples, up to 274 tokens; .* 200"),
    ],
)
def test_what_can_not_run_is_refused(right: str, wrong: str, message: str) -> None:
    assert right in TEACHER
    with pytest.raises(SpecError, match=message):
        parse_spec(TEACHER.replace(right, wrong), Pretraining, source="teacher")
