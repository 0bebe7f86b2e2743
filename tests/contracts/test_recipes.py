"""Every shipped recipe fits the schema and resolves with every shipped target."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from edgeicl.errors import SpecError
from edgeicl.job import resolve
from edgeicl.specs.catalog import load_recipe, shipped
from edgeicl.specs.loading import dump_yaml, parse_spec
from edgeicl.specs.recipe import Recipe
from edgeicl.tasks.demonstrations import choose
from edgeicl.tasks.label_words import with_label_words
from edgeicl.tasks.prompt import ChannelEncoder, PromptEncoder
from edgeicl.tasks.readers import read_examples
from tests.contracts.made_up_data import file_sources, write_data
from tests.unit.byte_tokenizer import byte_tokenizer

RECIPES, TARGETS = shipped("recipes"), shipped("targets")


def test_there_are_recipes_and_targets() -> None:
    assert {"quickstart", "opt-1.3b-nli", "snli", "rte", "lm-bff-sst-2", "metaicl", "lama"} <= set(RECIPES)
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
    for source in file_sources(load_recipe(recipe)):
        file = tmp_path / source.source.removeprefix("file:")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    job = resolve(str(path), targets=[target])
    assert job.folders == (Path("build") / recipe / target,)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_reads_data_of_the_form_that_it_describes(name: str, tmp_path: Path) -> None:
    written = load_recipe(name)
    write_data(written, tmp_path)
    recipe = with_label_words(written, tmp_path)
    task, shown = recipe.task, recipe.distill.demonstrations
    assert len(task.verbalizers) >= 2
    tokenizer = byte_tokenizer()
    make = {"pattern": task.pattern, "verbalizers": task.verbalizers, "separator": task.separator}
    encoders = [PromptEncoder(tokenizer, **make)]
    if task.channel_pattern:
        encoders.append(ChannelEncoder(tokenizer, **make | {"pattern": task.channel_pattern}))
    for source in file_sources(recipe):
        examples = read_examples(source, labels=tuple(task.verbalizers), base_folder=tmp_path)
        assert {example.label for example in examples} <= set(task.verbalizers)
        assert all(example.group for example in examples) == (source.breakdown is not None)
        drawn = choose(
            examples, count=shown.count, balanced=shown.balanced, seed=0, labels=tuple(task.verbalizers)
        )
        for encoder in encoders:
            assert min(map(len, encoder.queries(examples))) > 0
            assert len(encoder.demonstrations(drawn)) > shown.count
    # What is written beside an artifact says the same, without the data.
    assert parse_spec(dump_yaml(recipe), Recipe, source="resolved") == recipe
    assert with_label_words(recipe, tmp_path / "absent") == recipe


def test_a_recipe_whose_data_is_missing_does_not_resolve() -> None:
    with pytest.raises(SpecError, match=r"line 11 .*out_of_domain.source .*no file .*hans\.jsonl\.gz"):
        resolve("opt-1.3b-nli")


def test_a_name_that_is_none_is_refused_with_the_nearest() -> None:
    with pytest.raises(SpecError, match="did you mean 'quickstart'"):
        resolve("quikstart")
