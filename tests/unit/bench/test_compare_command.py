"""`edgeicl compare` as typed: its options, what it prints, and its exit code where a rival is missing."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import edgeicl.bench.compare as comparing
from edgeicl.bench_commands import bench_app
from edgeicl.errors import BenchError, SpecError
from edgeicl.specs.comparison import (
    ArtifactContestant,
    Comparison,
    NotMeasured,
    RepeatedComparison,
    RivalContestant,
    Round,
)
from edgeicl.specs.measurement import Conditions


def comparison(*missing: NotMeasured) -> Comparison:
    round_ = Round(
        load_ms=1, first_token_ms=10, prefill_tokens_per_second=400, decode_tokens_per_second=100,
        baseline_rss_bytes=10, peak_rss_bytes=100, first_token_samples_ms=(10,), decode_samples_ms=((10,),),
    )  # fmt: skip
    ours = ArtifactContestant(
        name="a", description="tiny", file_bytes=10, rounds=(round_,), sha256="0", bytes_per_token=5,
        ceiling_shares=(0.5,),
    )  # fmt: skip
    rival = RivalContestant(
        name="b", description="other", file_bytes=40, rounds=(round_,), versions={"torch": "1"},
        logit_error=0.01, logit_tolerance=0.1,
    )  # fmt: skip
    conditions = Conditions(
        machine="m", processor="p", logical_cores=2, threads=1, runtime="r", runtime_version="1",
        providers=("CPU",), artifact_sha256="0", prompt_tokens=4, decode_tokens=1, warmup_repetitions=0,
        repetitions=1,
    )  # fmt: skip
    return Comparison(
        fidelity="measured",
        conditions=conditions,
        weights="random weights",
        artifacts=(ours,),
        rivals=(rival,),
        not_measured=missing,
        pairings=(comparing.paired(ours, rival),),
        bandwidth_bytes_per_second=1e9,
    )


def run(monkeypatch: pytest.MonkeyPatch, found: Comparison, tmp_path: Path, *options: str) -> tuple[Any, Any]:
    asked: dict[str, Any] = {}

    class Made:
        not_measured = found.not_measured
        kept: Any = nullcontext()

        def run(self, rounds: int, *, most_rounds: int, number: int = 0) -> Comparison:
            asked["rounds"] = [*asked.get("rounds", []), (rounds, most_rounds, number)]
            return found

    def fake(artifacts: Any, workload: Any, **named: Any) -> Made:
        asked.update(named, artifacts=artifacts)
        return Made()

    monkeypatch.setattr(comparing, "prepare", fake)
    monkeypatch.setenv("EDGEICL_CACHE_DIR", str(tmp_path))
    command = ["compare", "x", "y", "--with", "b, c", "--threads", "1", *options]
    return CliRunner().invoke(bench_app, command), asked


def test_options_reach_the_comparison(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done, asked = run(monkeypatch, comparison(), tmp_path, "--python", "fake=bin/python", "--install")
    assert done.exit_code == 0
    assert asked["artifacts"] == [Path("x"), Path("y")]
    assert asked["rivals"] == ["b", "c"]
    assert asked["pythons"] == {"fake": Path.cwd() / "bin/python"}
    assert asked["install"] is True
    assert "0.25" in done.output  # ours in 10 bytes, theirs in 40
    assert "50 %" in done.output
    assert "0.01 (at most 0.1)" in done.output


def test_a_missing_rival_is_told_and_ends_with_9(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = comparison(NotMeasured(name="c", reason="its engine is not installed"))
    done, _ = run(monkeypatch, found, tmp_path)
    assert done.exit_code == 9
    assert "its engine is not installed" in done.output
    done, _ = run(monkeypatch, found, tmp_path, "--json")
    assert done.exit_code == 9
    assert Comparison.model_validate(json.loads(done.stdout)) == found


@pytest.mark.parametrize("runs", ["1", "2"])
def test_doubts_are_told_below_the_figures_and_end_with_9(
    runs: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = comparison().model_copy(update={"doubts": ("noisy: far apart",)})
    done, _ = run(monkeypatch, found, tmp_path, "--runs", runs)
    assert isinstance(done.exception, BenchError)
    assert "noisy: far apart" in str(done.exception)
    assert "--accept-noise" in done.exception.next_step
    assert ("Doubt: " in done.stdout, "50 %" in done.stdout) == (True, True)
    done, _ = run(monkeypatch, found, tmp_path, "--runs", runs, "--accept-noise", "--most-rounds", "30")
    assert done.exit_code == 0
    assert "noisy: far apart." in done.stdout


def test_a_python_without_a_name_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done, _ = run(monkeypatch, comparison(), tmp_path, "--python", "/usr/bin/python3")
    assert isinstance(done.exception, SpecError)
    assert "expected NAME=PATH" in str(done.exception)


def test_several_runs_are_told_together(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    done, asked = run(monkeypatch, comparison(), tmp_path, "--runs", "3", "--rounds", "2")
    assert done.exit_code == 0
    assert asked["rounds"] == [(2, 15, 0), (2, 15, 1), (2, 15, 2)]
    assert "Ratios of 3 runs" in done.output
    done, _ = run(monkeypatch, comparison(), tmp_path, "--runs", "2", "--json")
    assert len(RepeatedComparison.model_validate(json.loads(done.stdout)).runs) == 2
