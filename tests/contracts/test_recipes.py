"""Every shipped recipe fits the schema and resolves with every shipped target."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import pytest

from edgeicl.errors import SpecError
from edgeicl.job import resolve
from edgeicl.specs.catalog import load_recipe, shipped
from edgeicl.specs.loading import dump_yaml, parse_spec
from edgeicl.specs.recipe import Recipe

RECIPES, TARGETS = shipped("recipes"), shipped("targets")


def test_there_are_recipes_and_targets() -> None:
    assert {"quickstart", "opt-1.3b-nli"} <= set(RECIPES)
    assert {"tiny-cpu", "host-cpu"} <= set(TARGETS)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_load_and_survive_being_written_out(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert parse_spec(dump_yaml(recipe), Recipe, source="resolved") == recipe
    assert set(recipe.targets) <= set(TARGETS)


@pytest.mark.parametrize(("recipe", "target"), list(product(RECIPES, TARGETS)))
def test_every_recipe_resolves_with_every_target(
    recipe: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_bytes(RECIPES[recipe].read_bytes())
    for name in re.findall(r'"file:([^"]+)"', path.read_text()):
        (tmp_path / name).touch()
    job = resolve(str(path), targets=[target])
    assert job.folders == (Path("build") / recipe / target,)


def test_a_recipe_whose_data_is_missing_does_not_resolve() -> None:
    with pytest.raises(SpecError, match=r"line 11 .*out_of_domain.source .*no file .*hans\.jsonl\.gz"):
        resolve("opt-1.3b-nli")


def test_a_name_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'quickstart'"):
        resolve("quikstart")
