"""A student of every architecture from its checkpoint to a checked artifact, by the command line."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from edgeicl.bench.artifact import open_artifact
from edgeicl.emit.genai_process import run_genai
from edgeicl.models.loading import load_tokenizer
from edgeicl.models.model_folder import model_config, model_folder
from edgeicl.specs.manifest import Manifest
from tests.e2e.small_build import Program, small_compile
from tests.unit.tiny_models import make_model, write_model

STORIES = Path(__file__).parents[3] / "shared" / "data" / "models" / "TinyStories-656K"

RECIPE = """
version: 1
name: compiled
task:
  pattern: "{{text}}"
  verbalizers: {{happy: " happy", sad: " sad"}}
  train: {{source: "file:rows.jsonl"}}
  in_domain: {{source: "file:rows.jsonl"}}
distill:
  method: none
  student: {{model: "{model}"}}
limits: {{accuracy_drop_points: 50}}
targets: [host-cpu]
"""


def write_recipe(folder: Path, model: Path) -> Path:
    rows = [
        {"text": f"{name} {said} and was very", "label": label}
        for name in ("Tom", "Lily", "Ben", "Mia")
        for said, label in (("got a ball", "happy"), ("lost the toy", "sad"))
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = folder / "compiled.yaml"
    recipe.write_text(RECIPE.format(model=model))
    return recipe


def compile_student(program: Program, folder: Path, model: Path, *more: str) -> Manifest:
    output = folder / "artifact"
    done = program.run("compile", str(write_recipe(folder, model)), "-o", str(output), "--no-bench", *more)
    assert done.returncode == 0, done.stderr
    return Manifest.model_validate_json((output / "edgeicl.json").read_bytes())


@pytest.mark.parametrize("variant", ["gpt2", "llama-odd-tied", "opt-350m", "qwen3"])
def test_every_architecture_compiles_within_its_budget(program: Program, tmp_path: Path, variant: str) -> None:
    student = tmp_path / "student"
    student.mkdir()
    make_model(student, variant)
    budget = "budget.artifact_bytes=110kB"
    manifest = compile_student(program, tmp_path, student, "--target-set", budget)
    taken = sum(entry.bytes for entry in manifest.ledger)
    assert taken <= manifest.plan.predicted_artifact_bytes <= 110_000
    assert manifest.plan.predicted_artifact_bytes <= taken + 12_000
    bits = {entry.format.bits for entry in manifest.plan.groups}
    assert min(bits) <= 8
    assert {check.name.split(",")[0] for check in manifest.parity} == {"exact", "shipped"}
    # what could not be checked with genai would be a deviation of this name
    assert not [d for d in manifest.deviations if d.asked.startswith("onnxruntime-genai generates")]


def test_a_llama_learns_from_an_opt(program: Program, tmp_path: Path) -> None:
    """Method context, whose teacher is the built-in OPT; the two share a tokenizer and nothing else."""
    student = tmp_path / "student"
    student.mkdir()
    teacher = model_folder("builtin:nli-teacher")
    sizes = {"model_type": "llama", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "tie_word_embeddings": True}
    write_model(student, {**sizes, **heads, "vocab_size": model_config(teacher)["vocab_size"]})
    for file in teacher.glob("*token*.json"):
        shutil.copy(file, student)
    done = program.run(*small_compile(tmp_path / "artifact", "--set", f"distill.student.model={student}"))
    assert done.returncode == 0, done.stderr
    manifest = Manifest.model_validate_json((tmp_path / "artifact" / "edgeicl.json").read_bytes())
    assert manifest.evaluation is not None
    assert "context distillation" in {row.method for row in manifest.evaluation.rows}
    assert json.loads((tmp_path / "artifact" / "config.json").read_text())["model_type"] == "llama"
    assert {check.name.split(",")[0] for check in manifest.parity} == {"exact", "shipped"}


@pytest.mark.skipif(not STORIES.exists(), reason="shared/data/models/TinyStories-656K is absent")
def test_the_real_checkpoint_tells_the_story_that_transformers_tells(program: Program, tmp_path: Path) -> None:
    manifest = compile_student(program, tmp_path, STORIES, "--target-set", "budget.artifact_bytes=4MB")
    assert {entry.format.bits for entry in manifest.plan.groups} == {32}
    artifact = open_artifact(tmp_path / "artifact")
    ids = load_tokenizer(STORIES).encode("Once upon a time").ids
    count = 80
    model = AutoModelForCausalLM.from_pretrained(STORIES, dtype=torch.float32).eval()
    with torch.inference_mode():
        whole = model.generate(torch.tensor([ids]), max_new_tokens=count, do_sample=False)[0].tolist()
    expected = whole[len(ids) :]
    decoder = artifact.decoder(threads=1, context_tokens=len(ids) + count)
    assert decoder.generate(ids, count)[: len(expected)] == expected
    if importlib.util.find_spec("onnxruntime_genai"):
        run = run_genai(artifact.path, [ids], [count], [])
        assert run.generated is not None, run.failure
        (made,) = run.generated
        assert made[: len(expected)] == expected[: len(made)]
        assert len(made) >= len(expected) - 1
    told = program.run("run", str(artifact.path), "Once upon a time", "--generate", str(count))
    assert told.returncode == 0, told.stderr
    assert told.stdout.split() == load_tokenizer(STORIES).decode(expected).split()
    assert len(set(told.stdout.split())) > 15


@pytest.mark.skipif(not STORIES.exists(), reason="shared/data/models/TinyStories-656K is absent")
def test_the_real_checkpoint_in_fewer_bits_stays_close(program: Program, tmp_path: Path) -> None:
    """In a quarter of fp32's bytes its next tokens after a story's beginning are still mostly the same."""
    manifest = compile_student(program, tmp_path, STORIES, "--target-set", "budget.artifact_bytes=600kB")
    assert {entry.format.bits for entry in manifest.plan.groups} <= {2, 4, 8}
    artifact = open_artifact(tmp_path / "artifact")
    text = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    ids = load_tokenizer(STORIES).encode(text).ids
    model = AutoModelForCausalLM.from_pretrained(STORIES, dtype=torch.float32).eval()
    with torch.inference_mode():
        expected = model(torch.tensor([ids])).logits[0].argmax(-1).tolist()
    decoder = artifact.decoder(threads=1, context_tokens=len(ids))
    found = [int(decoder.prefill(np.array([ids[:1]]))[0].argmax())]
    found += [int(decoder.decode([token])[0].argmax()) for token in ids[1:]]
    agreeing = np.mean([ours == theirs for ours, theirs in zip(found, expected, strict=True)])
    assert agreeing > 0.8
