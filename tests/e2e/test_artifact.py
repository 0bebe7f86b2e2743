"""What a finished build holds, and what the runtime commands make of it."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from edgeicl.specs.manifest import Manifest
from edgeicl.store import file_sha256
from tests.e2e.small_build import REPOSITORY, Program, ledger_by_file, small_compile


@pytest.fixture(scope="module")
def manifest(artifact: Path) -> Manifest:
    return Manifest.model_validate_json((artifact / "edgeicl.json").read_bytes())


def test_every_file_is_in_the_manifest_with_its_hash(artifact: Path, manifest: Manifest) -> None:
    found = {path.name: file_sha256(path) for path in artifact.iterdir() if path.name != "edgeicl.json"}
    assert manifest.files == found
    expected = {
        "model.onnx",
        "model.onnx.data",
        "genai_config.json",
        "tokenizer.json",
        "task.json",
        "config.json",
    }
    expected |= {"report.md", "report.html", "README.md", "recipe.resolved.yaml", "plan.json"}
    assert expected <= set(found)


def test_the_ledger_equals_the_disk_to_the_byte(artifact: Path, manifest: Manifest) -> None:
    assert {"model.onnx", "model.onnx.data", "tokenizer.json"} <= set(ledger_by_file(artifact, manifest))


def test_the_budget_is_kept_and_the_embedding_stored_once(artifact: Path, manifest: Manifest) -> None:
    taken = sum(entry.bytes for entry in manifest.ledger)
    # The prediction bounds what is written later than the plan; a loose one would waste bits.
    assert taken <= manifest.plan.predicted_artifact_bytes <= taken + 10_000
    assert manifest.plan.predicted_artifact_bytes <= 330_000
    graph = onnx.load(str(artifact / "model.onnx"), load_external_data=False).graph
    ranges = {}
    for tensor in graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if place:
            ranges.setdefault((place["offset"], place["length"]), []).append(tensor.name)
    assert sum(int(length) for _, length in ranges) == (artifact / "model.onnx.data").stat().st_size
    assert any(len(names) == 2 for names in ranges.values())


def test_the_evaluation_has_every_baseline(manifest: Manifest) -> None:
    assert manifest.evaluation is not None
    methods = {row.method for row in manifest.evaluation.rows}
    assert len(methods) == 6
    assert {row.data for row in manifest.evaluation.rows} == {"in_domain", "out_of_domain"}
    assert manifest.evaluation.gain_points is not None
    assert manifest.evaluation.gain_points.low > 0


def test_the_report_is_self_contained(artifact: Path) -> None:
    html = (artifact / "report.html").read_text()
    assert "http-equiv" not in html
    assert ' src="http' not in html
    assert "<svg" in html or "data:image" in html
    for text in (html, (artifact / "report.md").read_text()):
        for word in ("in-domain", "out-of-domain", "context distillation", "int"):
            assert word in text


def test_run_classifies_and_generates(program: Program, artifact: Path) -> None:
    done = program.run(
        "run",
        str(artifact),
        "premise=the dog chased the cat today",
        "hypothesis=the dog chased the cat",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["label"] in {"entailment", "contradiction"}
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    done = program.run("run", str(artifact), "the dog chased", "--generate", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_code_of_the_model_card_runs_and_says_what_edgeicl_says(program: Program, artifact: Path) -> None:
    columns = {"premise": "the old dog chased the cat today", "hypothesis": "the dog chased the cat"}
    card = (artifact / "README.md").read_text()
    with_onnxruntime, with_genai = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    code = with_onnxruntime.replace('{"premise": "...", "hypothesis": "..."}', json.dumps(columns))
    assert json.dumps(columns) in code
    code += "print(json.dumps(scores))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=artifact, capture_output=True, text=True, check=True)
    label, scores = ran.stdout.strip().splitlines()
    said = json.loads(program.run("run", str(artifact), "--json", *columns.values()).stdout)
    assert label == said["label"]
    likelihoods = {name: math.exp(score) for name, score in json.loads(scores).items()}
    for name, likelihood in likelihoods.items():
        assert likelihood / sum(likelihoods.values()) == pytest.approx(said["probabilities"][name], abs=1e-5)
    if importlib.util.find_spec("onnxruntime_genai"):
        subprocess.run([sys.executable, "-c", with_genai], cwd=artifact, capture_output=True, check=True)


def test_eval_agrees_with_the_build(program: Program, artifact: Path, manifest: Manifest) -> None:
    done = program.run(
        *(
            "eval",
            str(artifact),
            "--data",
            "builtin:nli/action",
            "--split",
            "test",
            "--limit",
            "60",
            "--json",
        )
    )
    assert done.returncode == 0, done.stderr
    in_domain = next(row for row in manifest.accuracy if row.data == "in_domain")
    assert json.loads(done.stdout)["accuracy"] == pytest.approx(in_domain.artifact, abs=1e-9)


@pytest.mark.alone
def test_bench_measures_in_its_own_process(program: Program, artifact: Path) -> None:
    arguments = (
        "--threads",
        "1",
        "--prompt-tokens",
        "16",
        "--decode-tokens",
        "8",
        "--repetitions",
        "2",
        "--accept-noise",
        "--json",
    )
    done = program.run("bench", str(artifact), *arguments)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["fidelity"] == "measured"
    assert result["conditions"]["threads"] == 1
    assert len(result["decode_samples_ms"]) == 2
    assert result["ceiling_tokens_per_second"] > result["decode_tokens_per_second"] > 0


def test_a_changed_artifact_is_refused(program: Program, artifact: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(artifact, copy)
    data = bytearray((copy / "model.onnx.data").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.onnx.data").write_bytes(data)
    done = program.run("run", str(copy), "premise=a", "hypothesis=b")
    assert done.returncode == 8
    assert "model.onnx.data" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_plan_can_be_edited_and_fed_back(program: Program, artifact: Path, tmp_path: Path) -> None:
    plan = json.loads((artifact / "plan.json").read_text())
    for entry in plan["groups"]:
        entry["format"] = {"bits": 8, "block_size": 32, "symmetric": True}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    done = program.run(
        *small_compile(tmp_path / "edited", "--set", f"quantize.plan={tmp_path / 'plan.json'}"),
        *("--target-set", "budget.artifact_bytes=2MB"),
    )
    assert done.returncode == 0, done.stderr
    built = Manifest.model_validate_json((tmp_path / "edited/edgeicl.json").read_bytes())
    assert {entry.format.bits for entry in built.plan.groups} == {8}


@pytest.mark.parametrize(
    ("asked", "code", "told"),
    [
        (("--target-set", "budget.artifact_bytes=100kB"), 4, "at least"),
        (("--target-set", "context_tokens=4096", "--strict"), 10, "asked 4096, got 320"),
        (("--set", "quantize.plan=missing.json"), 2, "starts at the recipe's folder"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(
    asked: tuple[str, ...], code: int, told: str, tmp_path: Path
) -> None:
    """For a budget, the smallest size that could be kept."""
    done = Program(tmp_path / "cache").run(*small_compile(tmp_path / "small", *asked))
    assert done.returncode == code, done.stderr
    assert told in done.stderr
    assert "distill" not in done.stderr
    assert not list(tmp_path.glob("cache/**/*.safetensors"))
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize("method", ["jaccard", "zscore"])
def test_importance_of_blocks_builds_too(program: Program, tmp_path: Path, method: str) -> None:
    done = program.run(
        *small_compile(tmp_path / method, "--set", f"quantize.importance={method}"),
        *("--set", "quantize.lsaq={final_norm: false, sets_over: position}"),
    )
    assert done.returncode == 0, done.stderr
    built = Manifest.model_validate_json((tmp_path / method / "edgeicl.json").read_bytes())
    assert built.plan.importance == method


def test_the_repository_is_left_as_it_was(artifact: Path) -> None:
    assert not list(REPOSITORY.glob(".*.edgeicl-*"))
    assert [path.name for path in artifact.parent.iterdir()] == [artifact.name]
