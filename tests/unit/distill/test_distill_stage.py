from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import OPTForCausalLM

from edgeicl.distill import baselines, context_distillation, predictions, teacher_targets, trainer
from edgeicl.distill.stage import distill
from edgeicl.errors import DataError, GainError
from edgeicl.specs.recipe import Recipe
from edgeicl.store import Store

REPOSITORY = Path(__file__).parents[3]


def changed(recipe: Recipe, **distill: object) -> Recipe:
    return Recipe.model_validate(recipe.model_dump() | {"distill": recipe.distill.model_dump() | distill})


def test_the_whole_layer_and_its_second_run(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    titles: list[str] = []

    @contextmanager
    def listed(description: str, total: int) -> Iterator[Callable[[int], None]]:
        titles.append(description)
        yield lambda n: None

    for module in (predictions, teacher_targets, trainer):
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


def test_two_processes_train_the_same_student(recipe: Recipe, tmp_path: Path) -> None:
    """`accelerate launch` on two CPU processes; weights agree within 1e-4."""
    alone = distill(recipe, store=Store(tmp_path / "alone"), base_folder=tmp_path)
    (tmp_path / "recipe.json").write_text(recipe.model_dump_json())
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "from pathlib import Path\n"
        "from edgeicl.distill.stage import distill\n"
        "from edgeicl.distill.workers import workers\n"
        "from edgeicl.specs.recipe import Recipe\n"
        "from edgeicl.store import Store\n"
        "folder = Path(sys.argv[1])\n"
        "recipe = Recipe.model_validate_json((folder / 'recipe.json').read_text())\n"
        "together = workers()\n"
        "result = distill(recipe, store=Store(folder / 'two', workers=together), base_folder=folder)\n"
        "assert (result.student / 'model.safetensors').exists()\n"
        "if together.is_writer:\n"
        "    (folder / 'student.txt').write_text(str(result.student))\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [*launch, "--main_process_port", str(port), str(program), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    together = Path((tmp_path / "student.txt").read_text())
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (alone.student, together))
    assert max((ours[name] - theirs[name]).abs().max().item() for name in ours) < 1e-4
    untrained = load_file(Path(recipe.distill.student.model) / "model.safetensors")
    assert max((ours[name] - untrained[name]).abs().max().item() for name in ours) > 1e-3
