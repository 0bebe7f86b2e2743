"""A cache of 8-bit integers, and half precision for CUDA, by the command line."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgeicl.models.prefix_file import read_prefix
from edgeicl.specs.manifest import Manifest
from tests.e2e.forecast_check import forecast
from tests.e2e.small_build import Program
from tests.e2e.test_prefix import COLUMNS, SMALL

ARGUMENTS = ("in-context", *(part for override in SMALL for part in ("--set", override)))
INTEGERS = (*ARGUMENTS, "-t", "tiny-cpu", "--target-set", "budget.artifact_bytes=520kB")


def compiled(program: Program, output: Path, *arguments: str) -> Manifest:
    done = program.run("compile", *arguments, "-o", str(output))
    assert done.returncode == 0, done.stderr
    return Manifest.model_validate_json((output / "edgeicl.json").read_bytes())


def test_a_cache_of_integers(program: Program, tmp_path: Path) -> None:
    """Chosen for what it leaves the weights, said before, and followed by all that holds a cache."""
    offered = (*INTEGERS, "--target-set", "cache_bits=[32, 8]")
    said = forecast(program, offered)["targets"][0]
    folder = tmp_path / "a"
    manifest = compiled(program, folder, *offered)
    plan = manifest.plan
    assert plan.cache_bits == said["cache_bits"] == 8
    # demonstrations are kept as the cache takes them
    rows = read_prefix(folder / "prefix.safetensors")[0]
    assert {str(values.dtype) for found in rows for values in found.values()} == {"int8"}
    assert said["best"]["resident_bytes"] == pytest.approx(plan.predicted_resident_bytes, rel=0.05)
    assert sum(entry.bytes for entry in manifest.ledger) <= plan.predicted_artifact_bytes <= 520_000
    assert "keys and values in 8-bit integers" in (folder / "README.md").read_text()
    assert manifest.bench is not None
    evaluated = program.run(
        *("eval", str(folder), "--data", "builtin:nli/action", "--split", "test", "--limit", "40", "--json")
    )
    in_domain = next(row for row in manifest.accuracy if row.data == "in_domain")
    assert json.loads(evaluated.stdout)["accuracy"] == pytest.approx(in_domain.artifact, abs=1e-9)
    _card_agrees(program, folder)
    shown = ("--demonstrations", "builtin:nli/action", "--split", "train", "--count", "4")
    other = program.run("prefix", str(folder), *shown, "-o", str(tmp_path / "b"))
    assert other.returncode == 0, other.stderr
    assert program.run("run", str(tmp_path / "b"), *COLUMNS.values()).returncode == 0


def test_half_precision_for_cuda(program: Program, tmp_path: Path) -> None:
    manifest = compiled(program, tmp_path / "a", *ARGUMENTS, "-t", "cuda", "--no-bench")
    assert (manifest.plan.activation_bits, manifest.plan.cache_bits) == (16, 16)
    (provider,) = [entry for entry in manifest.deviations if entry.what == "provider"]
    assert provider.asked == "cuda"
    said = program.run("run", str(tmp_path / "a"), "--json", *COLUMNS.values())
    assert said.returncode == 0, said.stderr
    assert '"CUDAExecutionProvider"' in (tmp_path / "a/README.md").read_text()
    weights = sum(entry.bytes for entry in manifest.ledger if entry.file == "model.onnx.data")
    assert weights == manifest.plan.predicted_weight_bytes == (tmp_path / "a/model.onnx.data").stat().st_size


def _card_agrees(program: Program, folder: Path) -> None:
    """What the card's code says is what edgeicl says."""
    code = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[0]
    code = code.replace('{"premise": "...", "hypothesis": "..."}', json.dumps(COLUMNS))
    code += "print(json.dumps(scores))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    label, scores = ran.stdout.strip().splitlines()
    said = json.loads(program.run("run", str(folder), "--json", *COLUMNS.values()).stdout)
    assert label == said["label"]
    shares = [{name: math.exp(score) for name, score in found.items()} for found in json.loads(scores)]
    for name, probability in said["probabilities"].items():
        mean = sum(share[name] / sum(share.values()) for share in shares) / len(shares)
        assert mean == pytest.approx(probability, abs=1e-5)
