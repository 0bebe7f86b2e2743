"""An artifact that carries its demonstrations: built, asked, measured and given others by the command line."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgeicl.specs.manifest import Manifest
from edgeicl.store import file_sha256
from tests.e2e.forecast_check import check_forecast
from tests.e2e.small_build import Program, ledger_by_file

COLUMNS = {"premise": "the old dog chased the cat today", "hypothesis": "the dog chased the cat"}
# The small student, three sets of four, so that everything is there and little is computed.
SMALL = (
    "distill.student.model=builtin:nli-student",
    "distill.demonstrations.count=4",
    "task.train.limit=200",
    "task.in_domain.limit=40",
    "task.out_of_domain.limit=40",
    "quantize.calibration_examples=4",
    "limits.accuracy_drop_points=20",
)


ARGUMENTS = (
    *("in-context", "-t", "tiny-cpu"),
    *(part for override in SMALL for part in ("--set", override)),
    *("--target-set", "budget.artifact_bytes=520kB"),
)


@pytest.fixture(scope="module")
def carrying(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("carrying") / "artifact"
    done = program.run("compile", *ARGUMENTS, "-o", str(output))
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def manifest(carrying: Path) -> Manifest:
    return Manifest.model_validate_json((carrying / "edgeicl.json").read_bytes())


def test_the_prefix_is_within_the_budget_and_in_the_ledger(carrying: Path, manifest: Manifest) -> None:
    by_file = ledger_by_file(carrying, manifest)
    assert by_file["prefix.safetensors"] > 0
    taken = sum(by_file.values())
    assert taken <= manifest.plan.predicted_artifact_bytes <= min(taken + 12_000, 520_000)
    assert any(entry.format.quantized for entry in manifest.plan.groups)
    for name in ("report.md", "README.md"):
        assert "demonstrations, 3 sets of" in (carrying / name).read_text()


def test_the_plan_before_the_build_counted_the_prefix(
    program: Program, manifest: Manifest, tmp_path: Path
) -> None:
    check_forecast(program, ARGUMENTS, manifest, tmp_path / "cache")


def test_checked_behind_every_set_and_beside_the_student(manifest: Manifest) -> None:
    names = {check.name for check in manifest.parity}
    assert {f"exact, padded batch behind set {number}, decode" for number in range(3)} <= names
    assert manifest.evaluation is not None
    assert {row.method for row in manifest.evaluation.rows} == {"zero-shot student", "in-context student"}
    assert {row.data for row in manifest.accuracy} == {"in_domain", "out_of_domain"}
    assert manifest.bench is not None
    assert manifest.bench.conditions.prefix_tokens > 20


def test_eval_agrees_with_the_build(program: Program, carrying: Path, manifest: Manifest) -> None:
    arguments = ("--data", "builtin:nli/action", "--split", "test", "--limit", "40", "--json")
    done = program.run("eval", str(carrying), *arguments)
    assert done.returncode == 0, done.stderr
    in_domain = next(row for row in manifest.accuracy if row.data == "in_domain")
    assert json.loads(done.stdout)["accuracy"] == pytest.approx(in_domain.artifact, abs=1e-9)


def test_the_code_of_the_model_card_says_what_edgeicl_says(program: Program, carrying: Path) -> None:
    card = (carrying / "README.md").read_text()
    with_onnxruntime, with_genai = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    code = with_onnxruntime.replace('{"premise": "...", "hypothesis": "..."}', json.dumps(COLUMNS))
    assert json.dumps(COLUMNS) in code
    code += "print(json.dumps(scores))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=carrying, capture_output=True, text=True, check=True)
    label, scores = ran.stdout.strip().splitlines()
    said = json.loads(program.run("run", str(carrying), "--json", *COLUMNS.values()).stdout)
    assert label == said["label"]
    assert sum(said["votes"].values()) == 3
    by_set = [{name: math.exp(score) for name, score in found.items()} for found in json.loads(scores)]
    for name, probability in said["probabilities"].items():
        shares = [found[name] / sum(found.values()) for found in by_set]
        assert sum(shares) / 3 == pytest.approx(probability, abs=1e-5)
    if importlib.util.find_spec("onnxruntime_genai"):
        subprocess.run([sys.executable, "-c", with_genai], cwd=carrying, capture_output=True, check=True)


def test_new_demonstrations_without_training(program: Program, carrying: Path, tmp_path: Path) -> None:
    rows = [
        {"premise": f"the {a} saw the dog", "hypothesis": f"the {a} saw", "label": label}
        for a, label in (("cat", "entailment"), ("man", "contradiction"), ("goat", "entailment"))
    ]
    lines = [f"{row['premise']},{row['hypothesis']},{row['label']},kept" for row in rows]
    (tmp_path / "shown.csv").write_text("\n".join([*lines, "the fox,the fox,maybe,other"]))
    before = {path.name: file_sha256(path) for path in carrying.iterdir()}
    output = tmp_path / "other"
    headerless = ("--columns", "text,hypothesis,label,kind", "--rename", "text=premise", "--where", "kind=kept")
    shown = ("--demonstrations", f"file:{tmp_path / 'shown.csv'}", *headerless)
    done = program.run("prefix", str(carrying), *shown, "-o", str(output), "--json")
    assert done.returncode == 0, done.stderr
    assert {path.name: file_sha256(path) for path in carrying.iterdir()} == before
    told = json.loads(done.stdout)
    assert len(told["manifest"]["prefix"]["tokens"]) == 1
    changed = {name for name, sha256 in told["manifest"]["files"].items() if before.get(name) != sha256}
    assert changed == {"prefix.safetensors", "task.json", "README.md"}
    asked = program.run("run", str(output), "--json", *COLUMNS.values())
    assert asked.returncode == 0, asked.stderr
    assert "votes" not in json.loads(asked.stdout)  # one set

    arguments = ("prefix", str(carrying), "--demonstrations", f"file:{tmp_path / 'shown.jsonl'}")
    (tmp_path / "shown.jsonl").write_text(json.dumps(rows[0] | {"label": "maybe"}))
    wrong = program.run(*arguments, "-o", str(tmp_path / "wrong"))
    assert wrong.returncode == 7
    assert "maybe" in wrong.stderr
    (tmp_path / "shown.jsonl").write_text(json.dumps({"premise": "the cat", "label": "entailment"}))
    wrong = program.run(*arguments, "-o", str(tmp_path / "wrong"))
    assert wrong.returncode == 7
    assert "hypothesis" in wrong.stderr
    assert not (tmp_path / "wrong").exists()


def test_mistakes_are_told(program: Program, carrying: Path, tmp_path: Path) -> None:
    done = program.run(
        *("prefix", str(carrying), "--sets", "2", "--demonstrations", "builtin:nli/action"), "--split", "train"
    )
    assert done.returncode == 2
    assert "--count" in done.stderr
    done = program.run(*("prefix", str(tmp_path), "--demonstrations", "builtin:nli/action", "--split", "train"))
    assert done.returncode == 7
    assert "Traceback" not in done.stderr
