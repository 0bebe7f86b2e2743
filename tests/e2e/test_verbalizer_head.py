"""`emit.head: verbalizers` by the command line: built, asked, judged and measured; what it can't do is said."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgeicl.specs.manifest import Manifest
from tests.e2e.forecast_check import check_forecast
from tests.e2e.small_build import SMALL, Program, ledger_by_file
from tests.e2e.test_prefix import ARGUMENTS as CARRYING

HEAD = ("--set", "emit.head=verbalizers")
ARGUMENTS = ("recipes/quickstart.yaml", *(part for override in SMALL for part in ("--set", override)), *HEAD)
COLUMNS = {"premise": "the old dog chased the cat today", "hypothesis": "the dog chased the cat"}


@pytest.fixture(scope="module")
def built(program: Program, artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """After the ordinary build, whose student it shares."""
    assert artifact.exists()
    output = tmp_path_factory.mktemp("labels") / "artifact"
    done = program.run("compile", *ARGUMENTS, "-o", str(output))
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def manifest(built: Path) -> Manifest:
    return Manifest.model_validate_json((built / "edgeicl.json").read_bytes())


def answered(program: Program, artifact: Path) -> dict[str, float]:
    done = program.run("run", str(artifact), "--json", *COLUMNS.values())
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)["probabilities"]
    return found


def test_ledger_manifest_and_report(program: Program, built: Path, manifest: Manifest, tmp_path: Path) -> None:
    ledger_by_file(built, manifest)
    assert not {"genai_config.json", "generation_config.json"} & set(manifest.files)
    task = json.loads((built / "task.json").read_text())
    first = [tokens[0] for tokens in task["verbalizer_tokens"].values()]
    assert task["logit_tokens"] == list(manifest.logit_tokens or ()) == first
    assert manifest.bench is not None
    assert manifest.bench.decode_tokens_per_second is None
    for name in ("report.md", "README.md"):
        assert "othing is decoded" in (built / name).read_text()
    check_forecast(program, ARGUMENTS, manifest, tmp_path / "cache")


def test_run_eval_and_bench(program: Program, built: Path, artifact: Path, manifest: Manifest) -> None:
    # Another plan of bits, so not the same figures; the same student, so nearly.
    for label, share in answered(program, artifact).items():
        assert answered(program, built)[label] == pytest.approx(share, abs=0.05)
    data = ("--data", "builtin:nli/action", "--split", "test", "--limit", "60", "--json")
    done = program.run("eval", str(built), *data)
    assert done.returncode == 0, done.stderr
    in_domain = next(row for row in manifest.accuracy if row.data == "in_domain")
    assert json.loads(done.stdout)["accuracy"] == pytest.approx(in_domain.artifact, abs=1e-9)
    done = program.run("bench", str(built), "--prompt-tokens", "16", "--repetitions", "2", "--accept-noise")
    assert done.returncode == 0, done.stderr
    assert "nothing is decoded" in done.stdout
    assert "tokens/s" in done.stdout


def test_generation_is_refused_by_name(program: Program, built: Path) -> None:
    done = program.run("run", str(built), "the dog chased", "--generate", "4")
    assert done.returncode == 7
    assert "logits of its labels alone (emit.head: verbalizers)" in done.stderr
    assert "Traceback" not in done.stderr


def test_labels_of_several_tokens_are_refused_before_any_work(program: Program, tmp_path: Path) -> None:
    words = ("--set", "task.verbalizers={entailment: ' Yes Yes', contradiction: ' No'}")
    for command in (["plan"], ["compile", "-o", str(tmp_path / "out")]):
        done = Program(tmp_path / "cache").run(*command, *ARGUMENTS, *words)
        assert done.returncode == 7
        assert "'entailment' (2 tokens), expected labels of one token" in done.stderr
        assert "set emit.head: full" in done.stderr


@pytest.fixture(scope="module")
def carrying(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("carrying") / "artifact"
    done = program.run("compile", *CARRYING, *HEAD, "--no-bench", "-o", str(output))
    assert done.returncode == 0, done.stderr
    return output


def test_behind_demonstrations_sets_vote(program: Program, carrying: Path) -> None:
    done = program.run("run", str(carrying), "--json", *COLUMNS.values())
    assert done.returncode == 0, done.stderr
    assert sum(json.loads(done.stdout)["votes"].values()) == 3


@pytest.mark.parametrize("which", ["built", "carrying"])
def test_the_code_of_the_model_card_says_what_edgeicl_says(
    program: Program, request: pytest.FixtureRequest, which: str
) -> None:
    folder: Path = request.getfixturevalue(which)
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    code = code.replace('{"premise": "...", "hypothesis": "..."}', json.dumps(COLUMNS))
    code += "print(json.dumps(scores))"
    ran = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    label, scores = ran.stdout.strip().splitlines()
    sets = json.loads(scores)
    sets = sets if isinstance(sets, list) else [sets]
    said = answered(program, folder)
    assert label in said
    for name, share in said.items():
        found = sum(math.exp(each[name]) for each in sets) / len(sets)
        assert found == pytest.approx(share, abs=1e-5)
