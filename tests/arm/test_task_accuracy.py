"""The quickstart's artifact answers on an ARM core as it does on x86."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = 400
POINTS = 0.5


def edgeicl(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "edgeicl", *arguments], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """From the user's own store, where it was built before."""
    output = tmp_path_factory.mktemp("build") / "quickstart"
    edgeicl("compile", "recipes/quickstart.yaml", "--no-bench", "-o", str(output))
    return output


def test_accuracy_within_half_a_point(quickstart: Path) -> None:
    command = ["eval", str(quickstart), "--data", "builtin:nli/action", "--split", "out_of_domain"]
    command += ["--limit", str(EXAMPLES), "--json"]
    here = json.loads(edgeicl(*command))
    there = json.loads(edgeicl(*command, "--on", "qemu:cortex-a76"))
    assert (here["examples"], there["examples"]) == (EXAMPLES, EXAMPLES)
    assert abs(here["accuracy"] - there["accuracy"]) * 100 <= POINTS
    assert there["device"] == "qemu:cortex-a76"
    assert there["same_answers"] >= 1 - POINTS / 100
    assert here["accuracy"] > 0.9  # an artifact that guesses would agree by chance alone


def test_a_qemu_device_has_no_times(quickstart: Path) -> None:
    told = edgeicl("bench", str(quickstart), "--on", "qemu:max", "--json")
    found = json.loads(told)
    assert found["relative_error"] <= found["tolerance"]
    assert not [key for key in found if key.endswith(("_ms", "per_second"))]
