"""Method `icl` from a recipe to its result: stages, rows, demonstration sets, and what is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeicl.distill import icl_distillation, icl_teacher, tuned_model
from edgeicl.distill.icl_distillation import IclDistillation
from edgeicl.distill.in_context_tuning import SoftLoss, TextTerm
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.predictions import Predictor
from edgeicl.distill.stage import distill
from edgeicl.distill.task_run import TaskRun
from edgeicl.errors import DataError, EdgeiclError, GainError
from edgeicl.models.loading import load_tokenizer
from edgeicl.specs.prefix import read_prefix_source
from edgeicl.specs.recipe import Recipe
from edgeicl.store import SingleProcess, Store
from tests.trained_weights import ROUNDING, relative_difference, weights_in
from tests.unit.distill.two_processes import distilled_by_two

REPOSITORY = Path(__file__).parents[3]


def source(task: str, split: str = "train", limit: int = 60) -> dict[str, object]:
    return {"source": f"builtin:nli/{task}", "split": split, "limit": limit}


@pytest.fixture
def icl_recipe(recipe: Recipe) -> Recipe:
    """Two tuned tasks, one with words and a pattern of its own, and a term for text."""
    values = recipe.model_dump()
    del values["distill"]["transfer_examples"]  # of other methods
    values["task"] |= {
        "train": source("action"),
        "in_domain": source("action", "test", 30),
        "out_of_domain": None,
    }
    values["distill"] |= {
        "method": "icl",
        "objective": {"lm": 0.5},
        "text": {"source": "builtin:nli", "split": "train", "limit": 20},
        "icl": {
            "tasks": [
                {"train": source("today")},
                {
                    "train": source("animal"),
                    "pattern": "{hypothesis}: {premise}",
                    "verbalizers": {"entailment": "yes", "contradiction": "no!"},
                },
            ],
            "episodes": 24,
            "text_block_tokens": 16,
            "votes": 3,
        },
    }
    return Recipe.model_validate(values)


def changed(recipe: Recipe, *, icl: dict[str, object] | None = None, **distill_: object) -> Recipe:
    values = recipe.model_dump()
    values["distill"] |= distill_
    values["distill"]["icl"] |= icl or {}
    return Recipe.model_validate(values)


def test_the_whole_method_and_its_second_run(icl_recipe: Recipe, tmp_path: Path) -> None:
    result = distill(icl_recipe, store=Store(tmp_path), base_folder=tmp_path)
    runs = {row.method: len(row.accuracy.values) for row in result.evaluation.rows}
    assert runs == {
        "zero-shot student": 1,
        "in-context student": 2,
        "pattern-based fine-tuning": 2,
        "in-context tuning": 2,
        "in-context learning distillation": 2,
        "zero-shot teacher": 1,
        "in-context teacher": 2,
        "in-context tuned teacher": 2,
    }
    assert [name for name, _ in result.outputs] == [
        *("tuned-teacher", "teacher-gain", "teacher-targets", "student", "student without a teacher"),
        *("prefix", "baselines", "evaluation"),
    ]
    tests = result.evaluation.paired_tests
    assert {one.method for one in tests} == {"in-context learning distillation"}
    assert {one.baseline for one in tests} == set(runs) - {"in-context learning distillation"}
    start = weights_in(Path(icl_recipe.distill.student.model))
    with_teacher, without = (
        weights_in(output.path / "model") for name, output in result.outputs if name.startswith("student")
    )
    assert relative_difference(with_teacher, without, start) > 0.01

    # The sets of the deployed seed, as the text of the recipe: the seed that is nearest to the teacher.
    outputs = dict(result.outputs)
    apart = json.loads((outputs["prefix"].path / "divergences.json").read_text())
    deployed = result.evaluation.deployed_seed
    assert min(apart, key=apart.__getitem__) == f"seed_{deployed}"
    assert result.prefix is not None
    sets = read_prefix_source(result.prefix)
    tokenizer = load_tokenizer(result.student)
    material = IclDistillation(TaskRun(icl_recipe, Store(tmp_path), tmp_path)).material
    assert len(sets) == 3
    for ids, shown in zip(sets, material.data.shown[deployed], strict=True):
        assert ids.dtype == np.int64
        assert ids[0] == 0  # the leading token
        words = {"entailment": " Yes", "contradiction": " No"}
        assert tokenizer.decode(list(ids), skip_special_tokens=True) == "".join(
            f"{one.columns['premise']}. {one.columns['hypothesis']}?{words[one.label]}\n" for one in shown
        )

    again = distill(icl_recipe, store=Store(tmp_path), base_folder=tmp_path)
    assert all(output.reused for _, output in again.outputs)
    assert (again.prefix, again.evaluation) == (result.prefix, result.evaluation)


def test_multitask_with_a_teacher_as_it_is(icl_recipe: Recipe, tmp_path: Path) -> None:
    few = {"paradigm": "multitask", "train_examples": 10, "dev_examples": 12, "teacher_epochs": 0}
    wanted = changed(icl_recipe, icl=few, objective={"kl": 1.0}, text=None)
    assert wanted.distill.objective.ce == 1.0
    result = distill(wanted, store=Store(tmp_path), base_folder=tmp_path)
    methods = {row.method for row in result.evaluation.rows}
    assert "in-context tuned teacher" not in methods
    assert "tuned-teacher" not in dict(result.outputs)


def test_teacher_and_students_are_tuned_by_the_same_score_and_text(
    icl_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that a student has and the one without a teacher has not is the teacher."""
    values = changed(icl_recipe, objective={"kl": 1.0, "ce": 0.5, "lm": 0.25}).model_dump()
    values["task"]["score"] = "mean"
    tuned: list[tuple[str, SoftLoss | None, TextTerm | None, float]] = []

    def noted(reader: LabelReader, *_: object, **options: Any) -> list[float]:
        tuned.append((reader.score, options["soft"], options["text"], options["ce"]))
        return [0.0]

    monkeypatch.setattr(tuned_model, "tune_in_context", noted)
    distill(Recipe.model_validate(values), store=Store(tmp_path), base_folder=tmp_path)
    (_, no_soft, no_text, _), (_, soft, taught, ce), (_, no_teacher, plain, same_ce) = tuned
    assert [score for score, *_ in tuned] == ["mean"] * 3
    assert (no_soft, no_text, no_teacher) == (None, None, None)
    assert soft is not None
    assert taught is not None
    assert plain is not None
    assert taught.teacher is not None
    assert plain.teacher is None
    assert (ce, plain.weight, taught.weight) == (same_ce, 0.25, 0.25)
    assert np.array_equal(plain.blocks, taught.blocks)


def test_what_decides_the_targets_and_the_student_without_a_teacher(
    icl_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names of the stages that another score, or another weight of the text, makes anew."""
    monkeypatch.setattr(tuned_model, "tune_in_context", lambda *_, **__: [0.0])
    scored = icl_recipe.model_dump()
    scored["task"]["score"] = "mean"
    weighed = changed(icl_recipe, objective={"lm": 0.25})
    distill(icl_recipe, store=Store(tmp_path), base_folder=tmp_path)

    def reused(recipe: Recipe) -> set[str]:
        result = distill(recipe, store=Store(tmp_path), base_folder=tmp_path)
        return {name for name, output in result.outputs if output.reused}

    assert reused(Recipe.model_validate(scored)) == set()
    assert reused(weighed) == {"tuned-teacher", "teacher-gain", "teacher-targets", "baselines"}


def test_options_and_a_seed_that_diverged_are_told(
    icl_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuned_model, "tune_in_context", lambda *_, **__: [0.0])
    monkeypatch.setattr(icl_distillation, "divergences", lambda *_: {"seed_0": math.nan, "seed_1": 0.1})
    run = TaskRun(icl_recipe, Store(tmp_path), tmp_path)
    run.evaluation["in_domain"] = [replace(one, options=("entailment",)) for one in run.evaluation["in_domain"]]
    run.predictor = Predictor(run.encoder, run.evaluation)
    result = IclDistillation(run).distill()
    assert [one.what for one in result.deviations] == ["options", "student"]
    assert result.deviations[-1].where == "demonstration seed 0"
    (row,) = (one for one in result.evaluation.rows if one.method == "in-context learning distillation")
    assert row.accuracy_by_label["entailment"].mean == 1.0
    assert row.accuracy_by_label["contradiction"].mean == 0.0


def test_a_sharded_teacher_is_not_tuned(
    icl_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SingleProcess, "shards_teacher", True)
    cache = tmp_path / "cache"
    with pytest.raises(EdgeiclError, match=r"FSDP is configured and distill.icl.teacher_epochs is 1"):
        distill(icl_recipe, store=Store(cache), base_folder=tmp_path)
    assert not cache.exists()


def test_leakage_of_the_target_is_refused_or_told(icl_recipe: Recipe, tmp_path: Path) -> None:
    values = icl_recipe.model_dump()
    values["task"]["train"] = source("action", "test", 80)
    refused = Recipe.model_validate(values)
    with pytest.raises(DataError, match=r"task.train: 30 of 80 texts are in the evaluation data too"):
        IclDistillation(TaskRun(refused, Store(tmp_path), tmp_path))
    dropped = changed(refused, leakage="drop")
    (deviation,) = IclDistillation(TaskRun(dropped, Store(tmp_path), tmp_path)).material.deviations
    assert (deviation.where, deviation.asked, deviation.got) == ("task.train", "80", "50")


def test_a_source_of_demonstrations_is_read_or_refused(icl_recipe: Recipe, tmp_path: Path) -> None:
    rows = TaskRun(icl_recipe, Store(tmp_path), tmp_path).read(icl_recipe.task.train)
    for seed in (0, 1):
        with (tmp_path / f"rows-{seed}.jsonl").open("w") as stream:
            for one in rows[10 * seed : 10 * seed + 10]:
                stream.write(json.dumps({**one.columns, "label": one.label}) + "\n")
    demonstrations = icl_recipe.distill.demonstrations.model_dump() | {
        "source": {"source": "file:rows-{seed}.jsonl"}
    }
    wanted = changed(icl_recipe, demonstrations=demonstrations)
    data = IclDistillation(TaskRun(wanted, Store(tmp_path), tmp_path)).material.data
    shown: set[str] = set()
    for seed, several in data.shown.items():
        of_seed = {str(one.columns) for sets in several for one in sets}
        assert of_seed <= {str(one.columns) for one in rows[10 * seed : 10 * seed + 10]}
        shown |= of_seed
    assert not shown & {str(one.columns) for one in data.measured}
    with pytest.raises(DataError, match=r"demonstrations.source is given under paradigm multitask"):
        IclDistillation(TaskRun(changed(wanted, icl={"paradigm": "multitask"}), Store(tmp_path), tmp_path))


def test_a_teacher_that_says_nothing_is_refused_before_the_student(icl_recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(GainError, match="gains nothing certain"):
        distill(
            changed(icl_recipe, require_gain=True, icl={"teacher_epochs": 0}),
            store=Store(tmp_path),
            base_folder=tmp_path,
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["teacher-gain"]


def test_a_run_killed_among_its_targets_goes_on_there(
    icl_recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(icl_teacher, "_EPISODES_OF_A_PART", 8)
    wanted = changed(icl_recipe, icl={"teacher_epochs": 0})
    scored: list[int] = []
    real = icl_teacher.episode_scores

    def dies_at_the_second(reader: object, episodes: list[object], **rest: object) -> object:
        scored.append(len(episodes))
        if len(scored) == 2:
            raise KeyboardInterrupt
        return real(reader, episodes, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(icl_teacher, "episode_scores", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        distill(wanted, store=Store(tmp_path), base_folder=tmp_path)
    distill(wanted, store=Store(tmp_path), base_folder=tmp_path)
    assert scored == [8, 8, 8, 8]  # one part was kept, one lost, two were left


def test_a_tuned_task_that_is_the_target_in_disguise_is_refused(icl_recipe: Recipe, tmp_path: Path) -> None:
    """The same question under another name: the texts that both have tell."""
    rows = tmp_path / "rows.jsonl"
    task = TaskRun(icl_recipe, Store(tmp_path), tmp_path)
    with rows.open("w") as stream:
        for one in task.read(icl_recipe.task.train):
            stream.write(json.dumps({**one.columns, "label": one.label}) + "\n")
    wanted = changed(
        icl_recipe,
        icl={
            "tasks": [
                {
                    "train": {
                        "source": "file:rows.jsonl",
                        "map_labels": {"entailment": "contradiction", "contradiction": "entailment"},
                    }
                }
            ]
        },
    )
    with pytest.raises(DataError, match=r"tasks\[0\].* asks what the target task asks: all 60 texts"):
        distill(wanted, store=Store(tmp_path / "cache"), base_folder=tmp_path)


def test_evaluation_texts_in_a_tuned_task_are_left_out_and_told(icl_recipe: Recipe, tmp_path: Path) -> None:
    wanted = changed(icl_recipe, icl={"tasks": [{"train": source("today", "test", 80)}]})
    material = IclDistillation(TaskRun(wanted, Store(tmp_path), tmp_path)).material
    (deviation,) = material.deviations
    assert deviation.where == "distill.icl.tasks[0], builtin:nli/today (test)"
    assert (deviation.asked, deviation.got) == ("80", "50")
    evaluated = {one.columns["premise"] for one in material.run.evaluation["in_domain"]}
    tuned = {one.columns["premise"] for one in material.data.tuned[0].examples}
    assert len(tuned & evaluated) < 5  # a premise may have two hypotheses


def test_a_student_too_short_for_demonstrations_is_refused_before_any_work(
    icl_recipe: Recipe, tmp_path: Path, tokenizer: object, opt: object
) -> None:
    short = tmp_path / "short"
    opt(seed=2, layers=1, positions=150).save_pretrained(short)  # type: ignore[operator]
    tokenizer.save(str(short / "tokenizer.json"))  # type: ignore[attr-defined]
    with pytest.raises(DataError, match=r"with demonstrations has \d+ tokens; the student reads 150 tokens"):
        distill(
            changed(icl_recipe, student={"model": str(short)}),
            store=Store(tmp_path / "cache"),
            base_folder=tmp_path,
        )
    assert not (tmp_path / "cache").exists()


def test_two_processes_distill_the_student_of_one(icl_recipe: Recipe, tmp_path: Path) -> None:
    alone = distill(icl_recipe, store=Store(tmp_path / "alone"), base_folder=tmp_path)
    start = weights_in(Path(icl_recipe.distill.student.model))
    together = weights_in(distilled_by_two(icl_recipe, tmp_path)["student"])
    assert relative_difference(weights_in(alone.student), together, start) < ROUNDING
