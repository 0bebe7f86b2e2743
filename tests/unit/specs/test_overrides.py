"""`--set a.b.c=value`: YAML values, any depth, and problems that name the command line."""

from __future__ import annotations

import pytest

from edgeicl.errors import SpecError
from edgeicl.specs.loading import parse_spec
from edgeicl.specs.recipe import Recipe
from tests.unit.specs.test_loading import GOOD, problems_of


def loaded(*overrides: str) -> Recipe:
    return parse_spec(GOOD, Recipe, source="r.yaml", overrides=overrides)


def test_numbers_lists_sections_and_text() -> None:
    recipe = loaded(
        "distill.demonstrations.count=8",
        "distill.demonstrations.seeds=[5, 6]",
        "distill.training={epochs: 3}",
        'task.separator=" | "',
        "distill.method=none",
        "limits.accuracy_drop_points=2.5",
    )
    assert recipe.distill.demonstrations.count == 8
    assert recipe.distill.demonstrations.seeds == (5, 6)
    assert recipe.distill.training.epochs == 3
    assert recipe.task.separator == " | "
    assert recipe.limits.accuracy_drop_points == 2.5


def test_a_section_that_the_file_lacks_is_made_and_the_last_one_wins() -> None:
    assert loaded("quantize.top_k=5", "quantize.top_k=7").quantize.top_k == 7


def test_a_list_item_is_named_by_its_index() -> None:
    assert loaded("targets.0=other", "distill.demonstrations.seeds.1=9").targets == ("other",)


def test_a_value_may_hold_an_equals_sign() -> None:
    assert loaded('task.pattern="{premise} a=b"').task.pattern == "{premise} a=b"


def test_problems_of_overrides_name_the_command_line() -> None:
    found = problems_of(
        GOOD,
        "distill.demonstrations.cuont=8",
        "quantize.top_k=0",
        "distill.objective.kl=0",
        "distill.student.model.name=x",
        "targets.3=x",
        "nothing",
        "seed=[",
    )
    assert {key: line for key, (line, _, _) in found.items()} == dict.fromkeys(
        [
            "distill.student.model.name",
            "targets.3",
            "nothing",
            "seed",
            "distill.demonstrations.cuont",
            "quantize.top_k",
            "distill.objective",
        ]
    )
    assert "did you mean 'count'?" in found["distill.demonstrations.cuont"][2]


def test_mistakes_of_file_and_command_line_come_together() -> None:
    with pytest.raises(SpecError, match="2 problems") as caught:
        parse_spec(GOOD.replace("version: 1", "version: 3"), Recipe, source="r", overrides=["seed=x"])
    assert [str(problem).split()[0] for problem in caught.value.problems] == ["line", "command"]
