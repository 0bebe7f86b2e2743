"""Students through Optimum's exporter, and our own artifacts in Optimum's runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edgeicl.errors import DataError
from edgeicl.models.exporter import EXPORTER_PYTHON, exporter_python, exporter_versions
from edgeicl.specs.manifest import Manifest
from tests.e2e.small_build import Program
from tests.e2e.test_architectures import compile_student, write_recipe
from tests.unit.tiny_models import VARIANTS, write_model


def _optimum() -> bool:
    try:
        return bool(exporter_versions(exporter_python()))
    except DataError:
        return False


pytestmark = pytest.mark.skipif(
    not _optimum(), reason=f"optimum-onnx is neither installed nor beside a python named by {EXPORTER_PYTHON}"
)

_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "initializer_range": 0.15,
}
STUDENTS: dict[str, dict[str, Any]] = {
    # a head of its own, biases, positions as an input
    "gpt_neox": {"model_type": "gpt_neox", "intermediate_size": 128, **_SIZES},
    # tied, no input of positions, one head of keys and values
    "gemma": {
        "model_type": "gemma",
        "intermediate_size": 128,
        "num_key_value_heads": 1,
        "head_dim": 16,
        **_SIZES,
    },
    # tied, every other layer sees the nearest 32 tokens alone
    "gpt_neo": {
        "model_type": "gpt_neo",
        "attention_types": [[["global", "local"], 1]],
        "num_layers": 2,
        "num_heads": 4,
        "window_size": 32,
        **{name: _SIZES[name] for name in ("hidden_size", "max_position_embeddings", "initializer_range")},
    },
    # no positions at all
    "bloom": {"model_type": "bloom", "hidden_size": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.15},
}


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_without_a_lowering_compiles_within_its_budget(
    program: Program, tmp_path: Path, name: str
) -> None:
    student = tmp_path / "student"
    student.mkdir()
    write_model(student, STUDENTS[name])
    budget = 250_000 if name == "gpt_neo" else 190_000  # windows and positions are tables
    manifest = compile_student(program, tmp_path, student, "--target-set", f"budget.artifact_bytes={budget}")
    artifact = tmp_path / "artifact"
    sizes = {entry.file: (artifact / entry.file).stat().st_size for entry in manifest.ledger}
    taken = sum(entry.bytes for entry in manifest.ledger)
    assert taken == sum(sizes.values())
    assert taken <= manifest.plan.predicted_artifact_bytes <= budget
    assert {entry.format.bits for entry in manifest.plan.groups} <= {2, 4, 8, 32}
    assert min(entry.format.bits for entry in manifest.plan.groups) <= 8
    assert {check.name for check in manifest.parity} == {
        f"{level}, {case}, {part}"
        for level in ("exact", "shipped")
        for case in ("single prompt", "padded batch")
        for part in ("prefill", "decode")
    }
    assert manifest.engine == "growing"
    assert manifest.optimum_agrees
    assert [d.got for d in manifest.deviations if d.what == "graph"] == [
        "Optimum's export with quantized weights"
    ]

    told = program.run("run", str(artifact), "Tom got a ball", "--generate", "4")
    assert told.returncode == 0, told.stderr
    measured = program.run(
        "bench",
        str(artifact),
        "--prompt-tokens",
        "8",
        "--decode-tokens",
        "4",
        "--repetitions",
        "1",
        "--accept-noise",
        "--json",
    )
    assert measured.returncode == 0, measured.stderr
    assert json.loads(measured.stdout)["decode_tokens_per_second"] > 0
    asked = program.run("eval", str(artifact), "--data", f"file:{tmp_path / 'rows.jsonl'}", "--json")
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)["examples"] == 8
    strict = program.run(
        "compile", str(write_recipe(tmp_path, student)), "--strict", "-o", str(tmp_path / "no")
    )
    assert strict.returncode == 10


@pytest.mark.parametrize("variant", ["opt", "gpt2", "llama"])
def test_our_own_artifacts_run_in_optimum(program: Program, tmp_path: Path, variant: str) -> None:
    """The same greedy tokens from `ORTModelForCausalLM.from_pretrained(folder)`, or the build had failed."""
    student = tmp_path / "student"
    student.mkdir()
    write_model(student, VARIANTS[variant])
    manifest: Manifest = compile_student(
        program, tmp_path, student, "--target-set", "budget.artifact_bytes=110kB"
    )
    assert manifest.engine == "fused"
    assert manifest.optimum_agrees
