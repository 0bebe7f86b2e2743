"""A student without a lowering: what is told of it before any work."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgeicl.cli import app
from edgeicl.distill.compilable import compilable
from edgeicl.errors import DataError
from edgeicl.job import resolve
from edgeicl.models.architectures import exported
from edgeicl.models.exporter import EXPORTER_PYTHON
from edgeicl.specs.catalog import load_recipe
from tests.unit.specs.test_loading import GOOD

CONFIG = {
    "model_type": "gpt_neox",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "vocab_size": 96,
    "max_position_embeddings": 48,
    "eos_token_id": 2,
}
NONE = ("distill.method=none", "distill.teacher=null")


@pytest.fixture
def student(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def without_optimum(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = folder / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setenv(EXPORTER_PYTHON, str(bare))


def with_optimum(monkeypatch: pytest.MonkeyPatch, *, exports: bool = True) -> None:
    monkeypatch.setattr(exported, "exporter_versions", lambda python: {"optimum-onnx": "0.1"})
    monkeypatch.setattr(exported, "exports", lambda model_type, python: exports)


@pytest.mark.parametrize("command", ["check", "plan", "compile"])
def test_every_command_names_architecture_and_extra(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    without_optimum(tmp_path, monkeypatch)
    overrides = [part for key in (*NONE, f"distill.student.model={student}") for part in ("--set", key)]
    done = CliRunner().invoke(app, [command, "quickstart", "-t", "host-cpu", *overrides])
    assert isinstance(done.exception, DataError)
    told = str(done.exception)
    assert "'gpt_neox' is not supported; expected one of gpt2, llama, opt, qwen2, qwen3" in told
    assert 'pip install "edgeicl[export]"' in told
    assert f"{EXPORTER_PYTHON}=" in told


def test_the_anatomy_is_read_off_transformers_model(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_optimum(monkeypatch)
    anatomy = compilable(load_recipe("quickstart", NONE), student)
    layer = ["attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"]
    expected = [f"gpt_neox.layers.{number}.{name}" for number in range(2) for name in layer]
    assert [group.name for group in anatomy.groups] == [*expected, "embedding", "head"]
    assert anatomy.groups[0].shape == (96, 32)
    # two norms a layer and one last, with biases; biases of four linear layers; all in fp32
    assert anatomy.fixed_tensor_bytes == 4 * (5 * 2 * 32 + 2 * (96 + 32 + 64 + 32))


def test_settings_that_need_its_layers_are_refused_together(
    student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_optimum(monkeypatch)
    recipe = load_recipe(
        "quickstart",
        (
            *NONE,
            "quantize.importance=jaccard",
            "quantize.solver=gptq",
            "distill.prefix=demonstrations",
            "quantize.recover={steps: 3}",
        ),
    )
    with pytest.raises(DataError) as raised:
        compilable(recipe, student)
    told = str(raised.value)
    assert "quantize.importance: jaccard (expected sensitivity)" in told
    assert "quantize.solver: gptq (expected rtn or hqq)" in told
    assert "quantize.recover (expected null)" in told
    assert "distill.prefix: demonstrations (expected none)" in told
    assert "emit.head" not in told


def test_a_type_that_optimum_does_not_export(student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_optimum(monkeypatch, exports=False)
    with pytest.raises(DataError, match=r"'gpt_neox' is not supported.*or one that Optimum exports"):
        compilable(load_recipe("quickstart", NONE), student)


def test_logits_that_are_changed_after_the_head_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_optimum(monkeypatch)
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "final_logit_softcapping": 30.0}))
    with pytest.raises(DataError, match=r"final_logit_softcapping = 30\.0"):
        compilable(load_recipe("quickstart", NONE), tmp_path)


def test_all_is_told_before_optimum_is_installed(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the student is named, and what will be refused once Optimum is there."""
    without_optimum(tmp_path, monkeypatch)
    recipe = load_recipe("quickstart", (*NONE, "quantize.solver=gptq", "emit.head=verbalizers"))
    with pytest.raises(DataError) as raised:
        compilable(recipe, student)
    told = str(raised.value)
    assert told.startswith(f"distill.student.model: {student}: model type 'gpt_neox' is not supported")
    assert "quantize.solver: gptq (expected rtn or hqq)" in told
    assert "emit.head: verbalizers (expected full)" in told
    assert 'pip install "edgeicl[export]"' in raised.value.next_step
    assert "change these settings" in raised.value.next_step


def test_the_line_of_the_student_is_named(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_optimum(tmp_path, monkeypatch)
    recipe = tmp_path / "neox.yaml"
    recipe.write_text(GOOD.replace("builtin:nli-student", str(student)))
    line = next(n for n, text in enumerate(recipe.read_text().splitlines(), 1) if str(student) in text)
    with pytest.raises(DataError) as raised:
        resolve(str(recipe), builds=False)
    assert str(raised.value).startswith(f"{recipe}, line {line}: distill.student.model: {student}: ")
    with pytest.raises(DataError, match=r"neox\.yaml, command line: distill\.student\.model"):
        resolve(str(recipe), recipe_overrides=[f"distill.student.model={student}/."], builds=False)


def test_an_interpreter_that_is_not_there_is_named_with_its_variable(
    student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EXPORTER_PYTHON, "/nope/python")
    with pytest.raises(DataError, match=rf"{EXPORTER_PYTHON}=/nope/python can't be run: No such file"):
        compilable(load_recipe("quickstart", NONE), student)
