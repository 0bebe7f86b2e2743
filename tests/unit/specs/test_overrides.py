"""`--set a.b.c=value`: YAML values, any depth, and problems that name the command line."""

from __future__ import annotations

import pytest

from edgeicl.errors import SpecError
from edgeicl.specs.catalog import find_recipe, find_target
from edgeicl.specs.loading import load_spec, parse_spec
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.target import Target
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


def test_a_mistake_of_the_file_beside_an_override_has_its_line() -> None:
    text = GOOD.replace("objective: {kl: 1.0}", "objective: {kl: 0, ce: 0}")
    found = problems_of(text, "distill.objective.temperature=2")
    assert found["distill.objective"][0] == 14
    found = problems_of(text, "distill.objective.temperature=0")
    assert found["distill.objective.temperature"][0] is None
    assert found["distill.objective"][0] == 14
    assert problems_of(text, "distill.objective={kl: 0}")["distill.objective"][0] is None


def test_an_alias_is_a_value_of_its_own() -> None:
    text = GOOD.replace("train: {", "train: &data {").replace(
        'in_domain: {source: "builtin:nli/entailment", split: test}', "in_domain: *data"
    )
    task = parse_spec(text, Recipe, source="r", overrides=["task.train.limit=5"]).task
    assert (task.train.limit, task.in_domain.limit) == (5, None)
    assert task.in_domain.source == task.train.source


def test_what_is_no_plain_value_is_a_problem() -> None:
    assert set(problems_of(GOOD, "seed=&a [*a]", "targets={[a]: 1}")) == {"seed", "targets"}


def test_mistakes_of_file_and_command_line_come_together() -> None:
    with pytest.raises(SpecError, match="2 problems") as caught:
        parse_spec(GOOD.replace("version: 1", "version: 3"), Recipe, source="r", overrides=["seed=x"])
    assert [str(problem).split()[0] for problem in caught.value.problems] == ["line", "command"]


def test_what_an_override_makes_of_the_whole_is_no_fault_of_the_file() -> None:
    """A time limit without a calibration, and a section whose key is missing: the file alone is sound."""
    for path, model, override, key in (
        (find_target("tiny-cpu"), Target, "budget.decode_ms=3", ""),
        (find_recipe("quickstart"), Recipe, "quantize.recover.learning_rate=0.1", "quantize.recover.steps"),
    ):
        with pytest.raises(SpecError) as told:
            load_spec(path, model, overrides=[override])
        (problem,) = told.value.problems
        assert problem.line is None
        assert problem.key == key or not key
        assert "command line" in (told.value.next_step or "")
