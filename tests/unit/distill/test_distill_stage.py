from __future__ import annotations

import json
import logging
import math
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import normalizers
from transformers import BloomConfig, BloomForCausalLM, OPTForCausalLM

from edgeicl.distill import (
    baselines,
    context_distillation,
    label_training,
    shards,
    trainer,
)
from edgeicl.distill.stage import distill
from edgeicl.distill.student import best_student
from edgeicl.distill.task_run import TaskRun
from edgeicl.distill.workers import workers
from edgeicl.errors import DataError, EdgeiclError, GainError
from edgeicl.specs.recipe import Recipe
from edgeicl.store import SingleProcess, Store
from tests.trained_weights import ROUNDING, relative_difference, weights_in
from tests.unit.byte_tokenizer import byte_tokenizer
from tests.unit.distill.two_processes import distilled_by_two

REPOSITORY = Path(__file__).parents[3]


def changed(recipe: Recipe, **distill: object) -> Recipe:
    return Recipe.model_validate(recipe.model_dump() | {"distill": recipe.distill.model_dump() | distill})


def test_text_that_holds_an_evaluation_example_is_left_out_and_told(recipe: Recipe, tmp_path: Path) -> None:
    asked = TaskRun(recipe, Store(tmp_path), tmp_path).evaluated
    long = max(asked, key=lambda one: len(one.columns["premise"].split()))
    text = tmp_path / "some.txt"
    text.write_text(f"Plain text.\n\nThis: {long.columns['premise']}. {long.columns['hypothesis']}!\n\nMore.")
    run = TaskRun(changed(recipe, text={"source": f"file:{text}"}), Store(tmp_path), tmp_path)
    assert run.deviations == ()
    assert run.documents == ["Plain text.", "More."]
    assert [(told.what, told.got) for told in run.deviations] == [("documents", "2")]
    text.write_text(f"{long.columns['premise']}. {long.columns['hypothesis']}")
    with pytest.raises(DataError, match=r"distill.text: found an evaluation example in every document"):
        _ = TaskRun(changed(recipe, text={"source": f"file:{text}"}), Store(tmp_path), tmp_path).documents


def test_the_whole_layer_and_its_second_run(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    titles: list[str] = []

    @contextmanager
    def listed(description: str, total: int, already_done: int = 0) -> Iterator[Callable[[int], None]]:
        titles.append(description)
        yield lambda n: None

    for module in (shards, trainer):
        monkeypatch.setattr(module, "track", listed)
    caplog.set_level(logging.INFO, logger="edgeicl")
    result = distill(recipe, store=Store(tmp_path), base_folder=tmp_path)
    assert len(titles) == len(set(titles))
    assert {"distilling, seed_0", "fine-tuning, seed_1", "evaluating zero-shot student"} <= set(titles)
    assert re.search(
        r"held-out KL to the teacher: [0-9.e-]+ \(seed 0\), [0-9.e-]+ \(seed 1\); the", caplog.text
    )
    names = {path.name for path in result.student.iterdir()}
    assert {"config.json", "model.safetensors", "generation_config.json", "tokenizer.json"} <= names
    assert result.source == Path(recipe.distill.student.model)
    assert OPTForCausalLM.from_pretrained(result.student).config.vocab_size == 264

    rows = {(row.method, row.data): row for row in result.evaluation.rows}
    assert len(rows) == 6 * 2
    for (method, _), row in rows.items():
        assert len(row.accuracy.values) == (1 if method.startswith("zero-shot") else 2)
        assert row.examples == 30
        assert set(row.accuracy_by_label) == {"entailment", "contradiction"}
    divergences = {
        seed: json.loads((output.path / "distillation.json").read_text())["held_out_kl"]
        for seed in (0, 1)
        for name, output in result.outputs
        if name == f"student of seed_{seed}"
    }
    assert result.evaluation.deployed_seed == min(divergences, key=lambda seed: divergences[seed])

    again = distill(recipe, store=Store(tmp_path), base_folder=tmp_path)
    assert all(output.reused for _, output in again.outputs)
    assert (again.student, again.evaluation) == (result.student, result.evaluation)

    elsewhere = distill(recipe, store=Store(tmp_path / "other"), base_folder=tmp_path)
    same = (result.student / "model.safetensors").read_bytes()
    assert (elsewhere.student / "model.safetensors").read_bytes() == same


def test_a_teacher_without_gain_is_refused_at_once(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(GainError, match="gains nothing certain"):
        distill(changed(recipe, require_gain=True), store=Store(tmp_path), base_folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["teacher-gain"]


def test_a_run_killed_among_the_baselines_goes_on_there(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = context_distillation.untrained_predictions

    def dies(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(context_distillation, "untrained_predictions", dies)
    with pytest.raises(KeyboardInterrupt):
        distill(recipe, store=Store(tmp_path), base_folder=tmp_path)
    monkeypatch.setattr(context_distillation, "untrained_predictions", real)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("was fine-tuned again")

    monkeypatch.setattr(baselines, "fine_tune", never)
    result = distill(recipe, store=Store(tmp_path), base_folder=tmp_path)
    reused = {name for name, output in result.outputs if output.reused}
    assert reused == {"teacher-gain", "teacher-targets", "student of seed_0", "student of seed_1"}


def test_method_none_copies_the_student(
    recipe: Recipe, model_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    result = distill(changed(recipe, method="none"), store=Store(tmp_path), base_folder=tmp_path)
    ours, source = (load_file(folder / "model.safetensors") for folder in (result.student, model_folders[1]))
    assert ours.keys() == source.keys()
    assert all(torch.equal(ours[name], source[name]) for name in ours)
    assert {row.method for row in result.evaluation.rows} == {"zero-shot student"}


def test_a_student_with_other_tokens_is_refused_before_any_work(
    recipe: Recipe, model_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for name in ("config.json", "model.safetensors"):
        (other / name).write_bytes((model_folders[1] / name).read_bytes())
    tokens = json.loads((model_folders[1] / "tokenizer.json").read_text())
    vocab = tokens["model"]["vocab"]
    vocab["q"], vocab["z"] = vocab["z"], vocab["q"]
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    with pytest.raises(DataError, match="different tokenizers: 2 of 263 tokens differ"):
        distill(
            changed(recipe, student={"model": str(other)}),
            store=Store(tmp_path / "cache"),
            base_folder=tmp_path,
        )


def test_a_student_too_short_for_demonstrations_goes_without_that_baseline(
    recipe: Recipe, tmp_path: Path, tokenizer: object, opt: object
) -> None:
    short = tmp_path / "short"
    opt(seed=2, layers=1, positions=150).save_pretrained(short)  # type: ignore[operator]
    tokenizer.save(str(short / "tokenizer.json"))  # type: ignore[attr-defined]
    result = distill(
        changed(recipe, student={"model": str(short)}), store=Store(tmp_path / "cache"), base_folder=tmp_path
    )
    assert "in-context student" not in {row.method for row in result.evaluation.rows}
    (deviation,) = result.deviations
    assert deviation.where == "in-context student"
    assert deviation.why == "the student reads 150 tokens"


def test_a_query_that_the_student_can_not_read_is_refused_before_any_work(
    recipe: Recipe, tmp_path: Path, tokenizer: object, opt: object
) -> None:
    short = tmp_path / "short"
    opt(seed=2, layers=1, positions=40).save_pretrained(short)  # type: ignore[operator]
    tokenizer.save(str(short / "tokenizer.json"))  # type: ignore[attr-defined]
    wanted = changed(recipe, student={"model": str(short)})
    with pytest.raises(DataError, match=r"without demonstrations has \d+ tokens; the student .*short reads 40"):
        distill(wanted, store=Store(tmp_path / "cache"), base_folder=tmp_path)
    assert not (tmp_path / "cache").exists()


def test_a_student_that_can_not_be_compiled_is_refused_before_any_work(recipe: Recipe, tmp_path: Path) -> None:
    other = tmp_path / "bloom"
    BloomForCausalLM(BloomConfig(vocab_size=264, hidden_size=8, n_layer=1, n_head=1)).save_pretrained(other)
    byte_tokenizer().save(str(other / "tokenizer.json"))
    with pytest.raises(DataError, match="model type 'bloom' is not supported"):
        distill(
            changed(recipe, student={"model": str(other)}),
            store=Store(tmp_path / "cache"),
            base_folder=tmp_path,
        )
    assert not (tmp_path / "cache").exists()


def test_another_tokenizer_of_the_student_makes_other_targets(recipe: Recipe, tmp_path: Path) -> None:
    """One that differs where the probes of `check_same_tokens` don't look."""
    student = shutil.copytree(recipe.distill.student.model, tmp_path / "student")
    wanted = changed(recipe, student={"model": str(student)})
    store = Store(tmp_path / "cache")
    first = dict(distill(wanted, store=store, base_folder=tmp_path).outputs)
    tokenizer = byte_tokenizer()
    tokenizer.normalizer = normalizers.Replace("yesterday", "lately")
    tokenizer.save(str(student / "tokenizer.json"))
    second = dict(distill(wanted, store=store, base_folder=tmp_path).outputs)
    assert first["teacher-gain"].digest != second["teacher-gain"].digest
    assert not second["teacher-targets"].reused


def test_training_that_diverges_under_every_seed_is_an_error(recipe: Recipe, tmp_path: Path) -> None:
    training = recipe.distill.training.model_dump() | {"learning_rate": 1e30}
    with pytest.raises(EdgeiclError, match=r"diverged under every .*nan.*\nnext: lower .*learning_rate"):
        distill(changed(recipe, training=training), store=Store(tmp_path), base_folder=tmp_path)


def test_a_diverged_student_is_not_deployed_and_told() -> None:
    deployed, (deviation,) = best_student({0: math.nan, 1: 0.2, 2: 0.1})
    assert deployed == 2
    assert (deviation.where, deviation.got) == ("demonstration seed 0", "a held-out KL of nan")
    assert best_student({3: 0.1, 1: 0.1}) == (1, ())


def test_two_processes_train_the_same_student(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = distill(recipe, store=Store(tmp_path / "alone"), base_folder=tmp_path)
    ours, start = weights_in(alone.student), weights_in(Path(recipe.distill.student.model))
    together = weights_in(distilled_by_two(recipe, tmp_path)["student"])
    assert relative_difference(ours, together, start) < ROUNDING

    # Negative control: what a process would train that never heard of the other's gradients.
    whole = label_training.batch_order
    monkeypatch.setattr(
        label_training, "batch_order", lambda *args, **kw: [batch[::2] for batch in whole(*args, **kw)]
    )
    half = distill(recipe, store=Store(tmp_path / "half"), base_folder=tmp_path)
    assert relative_difference(ours, weights_in(half.student), start) > 1000 * ROUNDING


def test_a_launch_that_starts_fewer_processes_than_asked_for_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert isinstance(workers(), SingleProcess)
    assert not caplog.messages
    # Of `accelerate launch --cpu --num_processes 2`, which sets neither RANK nor WORLD_SIZE.
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert isinstance(workers(), SingleProcess)
    assert "asked for several processes and started one" in caplog.text
