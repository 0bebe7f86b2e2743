"""Method meta_kd through the whole recipe layer, on tiny random models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import OPTForCausalLM

from edgeicl.distill.meta_kd import student_stage
from edgeicl.distill.stage import distill
from edgeicl.errors import DataError, EdgeiclError
from edgeicl.specs.recipe import Recipe
from edgeicl.store import Store
from tests.unit.byte_tokenizer import byte_tokenizer

SMALL = {
    "domain": "negation",
    "domain_column": "phenomenon",
    "domain_examples": 6,
    "teacher_steps": 4,
    "matching": {"epochs": 2},
}
METHODS = {
    "zero-shot student",
    "in-context student",
    "pattern-based fine-tuning",
    "single-domain distillation",
    "mixed-domain distillation",
    "Meta-KD",
    "zero-shot teacher",
    "in-context teacher",
    "single-domain teacher",
    "mixed-domain teacher",
    "meta-teacher",
}


def meta(recipe: Recipe, *, in_domain: dict[str, Any] | None = None, **changed: Any) -> Recipe:
    values = recipe.model_dump()
    values["task"]["in_domain"] |= {"where": {"phenomenon": "negation"}} if in_domain is None else in_domain
    values["task"]["out_of_domain"] = None
    values["distill"] |= {"method": "meta_kd", "meta_kd": SMALL | changed}
    return Recipe.model_validate(values)


def test_the_whole_layer_and_its_second_run(recipe: Recipe, tmp_path: Path) -> None:
    result = distill(meta(recipe), store=Store(tmp_path), base_folder=tmp_path)
    rows = {row.method: row for row in result.evaluation.rows}
    assert set(rows) == METHODS
    assert {name: len(row.accuracy.values) for name, row in rows.items()} == {
        name: 2 if name.startswith("in-context") else 1 for name in METHODS
    }
    assert [name for name, _ in result.outputs] == [
        "transferability",
        "meta-teacher",
        "single-domain teacher",
        "mixed-domain teacher",
        "Meta-KD, matched",
        "Meta-KD",
        "single-domain distillation, matched",
        "single-domain distillation",
        "mixed-domain distillation, matched",
        "mixed-domain distillation",
        "baselines",
        "evaluation",
    ]
    assert OPTForCausalLM.from_pretrained(result.student).config.num_hidden_layers == 1
    students = {name: output.digest for name, output in result.outputs if output.path.parent.name == "student"}
    assert len(set(students.values())) == len(students) == 3

    again = distill(meta(recipe), store=Store(tmp_path), base_folder=tmp_path)
    assert all(output.reused for _, output in again.outputs)
    assert (again.student, again.evaluation) == (result.student, result.evaluation)

    elsewhere = distill(meta(recipe), store=Store(tmp_path / "other"), base_folder=tmp_path)
    same = (result.student / "model.safetensors").read_bytes()
    assert (elsewhere.student / "model.safetensors").read_bytes() == same


@pytest.mark.parametrize(
    ("changed", "anew"),
    [
        ({"weights": {"prototypes": "domain"}}, {"transferability", "meta-teacher"}),
        ({"weights": {"prototypes": "none"}}, {"meta-teacher"}),
        ({"weights": {"embedding": "last_token"}}, {"transferability", "meta-teacher"}),
        ({"confusion": {"labels": "shuffled"}}, {"meta-teacher"}),
        ({"confusion": {"labels": "reversed"}}, {"meta-teacher"}),
        ({"domain_in_teacher": False}, {"meta-teacher", "mixed-domain teacher"}),
        ({"matching": {"epochs": 2, "domain_target": "random_projection"}}, set()),
        ({"matching": {"epochs": 2, "expertise": False}}, set()),
    ],
    ids=str,
)
def test_every_option_changes_the_student_and_no_more_than_it_must(
    recipe: Recipe, tmp_path_factory: pytest.TempPathFactory, changed: dict[str, Any], anew: set[str]
) -> None:
    store = Store(tmp_path_factory.getbasetemp() / "options")
    before, after = (
        distill(meta(recipe, **settings), store=store, base_folder=Path()) for settings in ({}, changed)
    )
    weights, others = (load_file(one.student / "model.safetensors") for one in (before, after))
    assert any(not torch.equal(weights[name], others[name]) for name in weights)
    early = {"transferability", "meta-teacher", "single-domain teacher", "mixed-domain teacher"}
    assert {name for name, output in after.outputs if not output.reused and name in early} <= anew


def test_sources_as_domains(recipe: Recipe, tmp_path: Path) -> None:
    """Two sources give what the same rows of one column do."""
    values = meta(recipe).model_dump()
    values["task"]["train"] |= {"where": {"phenomenon": "negation"}, "limit": 8}
    place = values["task"]["train"] | {"where": {"phenomenon": "place"}, "limit": 12}
    values["distill"]["meta_kd"] |= {"domain_column": None, "domains": {"place": place}, "baselines": []}
    result = distill(Recipe.model_validate(values), store=Store(tmp_path), base_folder=tmp_path)
    assert {row.method for row in result.evaluation.rows} == METHODS - {
        f"{kind}-domain {what}" for kind in ("single", "mixed") for what in ("teacher", "distillation")
    }


def test_a_run_killed_in_the_students_goes_on_there(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = student_stage.distill_student

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(student_stage, "distill_student", dies)
    with pytest.raises(KeyboardInterrupt):
        distill(meta(recipe), store=Store(tmp_path), base_folder=tmp_path)
    monkeypatch.setattr(student_stage, "distill_student", real)
    result = distill(meta(recipe), store=Store(tmp_path), base_folder=tmp_path)
    assert {name for name, output in result.outputs if output.reused} == {
        "transferability",
        "meta-teacher",
        "single-domain teacher",
        "mixed-domain teacher",
        "Meta-KD, matched",
    }


def test_other_domains_in_the_evaluation_are_refused_before_any_work(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected 'negation' alone"):
        distill(meta(recipe, in_domain={}), store=Store(tmp_path), base_folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_models_that_dont_match_are_refused_before_any_work(
    recipe: Recipe, opt: Callable[..., OPTForCausalLM], tmp_path: Path
) -> None:
    deep = tmp_path / "deep"
    opt(seed=3, layers=3).save_pretrained(deep)
    byte_tokenizer().save(str(deep / "tokenizer.json"))
    values = meta(recipe).model_dump()
    values["distill"]["student"]["model"] = str(deep)
    store = Store(tmp_path / "store")
    with pytest.raises(DataError, match="the student has 3 layers, its teacher 2"):
        distill(Recipe.model_validate(values), store=store, base_folder=tmp_path)
    assert not store.root.exists()


def test_a_training_that_diverges_is_told(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(EdgeiclError, match="meta-teacher: training diverged") as found:
        distill(meta(recipe, teacher_learning_rate=1e30), store=Store(tmp_path), base_folder=tmp_path)
    assert "distill.meta_kd.teacher_learning_rate" in str(found.value.next_step)
