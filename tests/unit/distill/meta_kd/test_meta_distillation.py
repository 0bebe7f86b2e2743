"""Method meta_kd through the whole recipe layer, on tiny random models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import OPTForCausalLM

from edgeicl.distill.label_reader import LabelReader, Score
from edgeicl.distill.meta_kd import student_stage
from edgeicl.distill.meta_kd.course import meta_kd_course
from edgeicl.distill.meta_kd.meta_task import MetaTask
from edgeicl.distill.meta_kd.teacher_stage import TeacherStage, read_answers
from edgeicl.distill.scoring import score_queries
from edgeicl.distill.stage import distill
from edgeicl.distill.student import MODEL
from edgeicl.distill.task_run import TaskRun
from edgeicl.errors import DataError, EdgeiclError
from edgeicl.models.loading import load_model
from edgeicl.specs.manifest import Deviation
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.source import Source
from edgeicl.store import SingleProcess, Store
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
    del values["distill"]["transfer_examples"]  # of other methods
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
    assert {test.baseline for test in result.evaluation.paired_tests} == METHODS - {"Meta-KD"}
    assert {test.method for test in result.evaluation.paired_tests} == {"Meta-KD"}
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
        ({"weights": {"prototypes": "domain"}}, ["transferability", "meta-teacher"]),
        ({"weights": {"prototypes": "none"}}, ["meta-teacher"]),
        ({"weights": {"embedding": "last_token"}}, ["transferability", "meta-teacher"]),
        ({"confusion": {"labels": "shuffled"}}, ["meta-teacher"]),
        ({"confusion": {"labels": "reversed"}}, ["meta-teacher"]),
        ({"domain_in_teacher": False}, ["meta-teacher", "mixed-domain teacher"]),
        ({"matching": {"epochs": 2, "domain_target": "random_projection"}}, []),
        ({"matching": {"epochs": 2, "expertise": False}}, []),
    ],
    ids=str,
)
def test_every_option_changes_the_student_and_no_more_than_it_must(
    recipe: Recipe, tmp_path_factory: pytest.TempPathFactory, changed: dict[str, Any], anew: list[str]
) -> None:
    store = Store(tmp_path_factory.getbasetemp() / "options")
    before, after = (
        distill(meta(recipe, **settings), store=store, base_folder=Path()) for settings in ({}, changed)
    )
    weights, others = (load_file(one.student / "model.safetensors") for one in (before, after))
    assert any(not torch.equal(weights[name], others[name]) for name in weights)
    early = {"transferability", "meta-teacher", "single-domain teacher", "mixed-domain teacher"}
    assert {name for name, output in after.outputs if not output.reused and name in early} <= {*anew}


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


def test_baselines_have_nothing_to_match_where_the_domain_feature_alone_is(
    recipe: Recipe, tmp_path: Path
) -> None:
    changed = meta(recipe, matching={"epochs": 2, "hidden": 0, "attention": 0})
    names = [name for name, _ in distill(changed, store=Store(tmp_path), base_folder=tmp_path).outputs]
    assert [name for name in names if name.endswith("matched")] == ["Meta-KD, matched"]
    assert "single-domain distillation" in names


@pytest.mark.parametrize("score", ["sum", "mean"])
def test_teachers_score_labels_as_the_task_says(recipe: Recipe, tmp_path: Path, score: Score) -> None:
    """With labels of so many tokens that it makes a difference."""
    values = meta(recipe, baselines=[]).model_dump()
    values["task"] |= {"score": score, "verbalizers": {"entailment": " surely", "contradiction": " no"}}
    task = MetaTask(TaskRun(Recipe.model_validate(values), Store(tmp_path), tmp_path))
    teacher = TeacherStage(task).run(meta_kd_course(task.meta_kd))
    found = read_answers(teacher)
    assert len(set(map(len, task.tokens))) == 2
    for each in ("sum", "mean"):
        expected = score_queries(
            LabelReader(load_model(teacher.path / MODEL), score=each),  # type: ignore[arg-type]
            task.encoder.queries(task.own),
            task.tokens,
            before=task.encoder.leading,
        )
        assert (found == pytest.approx(expected, abs=1e-5)) == (each == score)


def test_demonstrations_of_a_source_of_their_own(recipe: Recipe, tmp_path: Path) -> None:
    """More than the student's domain has; and what is evaluated is refused there too."""
    own, evaluated = (
        {"source": "builtin:nli", "split": split, "limit": 40, "seed": 9, "where": {"phenomenon": "negation"}}
        for split in ("train", "test")
    )
    values = meta(recipe).model_dump()
    values["distill"]["demonstrations"] = {"count": 10, "seeds": [0, 1], "source": own}
    task = MetaTask(TaskRun(Recipe.model_validate(values), Store(tmp_path), tmp_path))
    pool = task.run.read(Source.model_validate(own))
    assert {seed: len(shown) for seed, shown in task.demonstrations.items()} == {0: 10, 1: 10}
    assert all(one in pool for shown in task.demonstrations.values() for one in shown)
    assert task.deviations == ()

    values["task"]["in_domain"] = values["distill"]["demonstrations"]["source"] = evaluated
    with pytest.raises(DataError, match=r"distill\.demonstrations\.source, seed 0: 40 of 40 texts are in the"):
        distill(Recipe.model_validate(values), store=Store(tmp_path), base_folder=tmp_path)
    values["task"]["in_domain"] = evaluated | {"limit": 20}
    values["distill"]["leakage"] = "drop"
    task = MetaTask(TaskRun(Recipe.model_validate(values), Store(tmp_path), tmp_path))
    assert [(one.where, one.asked, one.got) for one in task.deviations] == [
        (f"distill.demonstrations.source, seed {seed}", "40", "20") for seed in (0, 1)
    ]


def test_what_the_task_asks_for_in_vain_is_told(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Deviation(what="options", where="training", asked="a row's own", got="all", why="one pass")
    monkeypatch.setattr(TaskRun, "deviations", (told,))
    changed = meta(recipe, baselines=[])
    assert told in distill(changed, store=Store(tmp_path), base_folder=tmp_path).deviations


def test_shared_weights_of_the_teacher_are_refused_before_any_work(recipe: Recipe, tmp_path: Path) -> None:
    class Sharding(SingleProcess):
        shards_teacher = True

    store = Store(tmp_path / "store", workers=Sharding())
    with pytest.raises(EdgeiclError, match="configured for FSDP") as found:
        distill(meta(recipe), store=store, base_folder=tmp_path)
    assert "without FSDP" in str(found.value.next_step)
    assert not store.root.exists()


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
