"""The stage around the runner: what is refused, what is noted, and one real run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgeicl.bench.stage as stage
from edgeicl.bench.devices.output import parse_answer
from edgeicl.bench.stage import bench
from edgeicl.bench.workload import Workload
from edgeicl.bench.workload_run import run_workload
from edgeicl.errors import BenchError, IntegrityError

Make = Callable[..., Path]
RUN: dict[str, Any] = {
    "load_ms": 12.0,
    "first_token_ms": [30.0, 29.0, 31.0],
    "decode_ms": [[2.0, 2.0], [2.0, 2.0], [1.9, 2.1]],
    "baseline_rss_bytes": 1_000_000,
    "peak_rss_bytes": 5_000_000,
    "threads": 1,
    "pool_threads": 1,
    "prefix_tokens": 0,
    "providers": ["CPUExecutionProvider"],
    "runtime": "onnxruntime",
    "runtime_version": "1.31.1",
    "machine": "Linux x86_64",
    "processor": "a processor",
    "logical_cores": 2,
    "pages_dropped": True,
    "cooled_s": 0.0,
    "start_c": 40.0,
    "device": {
        "system": "Linux 6.1",
        "architecture": "x86_64",
        "processor": "a processor",
        "logical_cores": 2,
    },
    "states": [
        {"when": "before", "temperatures_c": {"cpu": 40.0}},
        {"when": "after", "temperatures_c": {"cpu": 50.0}},
    ],
    "bandwidth": {"memory": {"add": 3e9, "copy": 4e9}, "token": {"add": 9e9, "copy": 8e9}},
}


def measured(
    monkeypatch: pytest.MonkeyPatch, artifact: Path, run: dict[str, Any], *, decode_tokens: int = 2
) -> tuple[Any, dict[str, Any]]:
    asked: dict[str, Any] = {}

    class Placed:
        def ask(self, action: str, workload: Workload, **more: Any) -> dict[str, Any]:
            if action == "load":
                return run | {"load_ms": 8.0}
            asked.update(more | {"workload": workload})
            return run

    monkeypatch.setattr(stage, "busy_share", lambda: 0.0)
    monkeypatch.setattr(stage, "place_artifact", lambda bench, opened, **placed: Placed())
    result = bench(artifact, Workload(1, 6, decode_tokens, repetitions=3, warmup_repetitions=1))
    return result, asked


def test_figures_of_a_made_up_run(monkeypatch: pytest.MonkeyPatch, make_artifact: Make) -> None:
    result, asked = measured(monkeypatch, make_artifact(), RUN)
    assert result.fidelity == "measured"
    assert result.first_token_ms == 30.0
    assert result.prefill_tokens_per_second == pytest.approx(200.0, rel=1e-12)
    assert result.decode_tokens_per_second == pytest.approx(500.0, rel=1e-12)
    assert result.decode_latency.p50_ms == 2.0
    assert result.spread_ratio == pytest.approx(0.0, abs=1e-12)
    assert result.notes == ()
    assert (result.load_ms, result.cold_load_ms, result.warm_load_ms) == (12.0, 12.0, 8.0)
    assert [state.when for state in result.states] == ["before", "after"]
    # Cache: 2 layers x keys and values x 32 x 4 bytes, at 6 + 1.5 positions.
    assert result.bytes_per_token == asked["bytes_per_token"]
    assert (result.bandwidth_bytes_per_second, result.bandwidth_probe) == (4e9, "copy")
    # The model fits in a cache, which reads at 9 GB/s: that is its ceiling.
    assert result.token_bandwidth_bytes_per_second == 9e9
    assert result.ceiling_tokens_per_second == pytest.approx(9e9 / result.bytes_per_token, rel=1e-12)
    assert result.decode_samples_ms == ((2.0, 2.0), (2.0, 2.0), (1.9, 2.1))
    assert result.conditions.prompt_tokens == 6
    assert result.conditions.repetitions == 3


def test_a_noisy_run_says_so(monkeypatch: pytest.MonkeyPatch, make_artifact: Make) -> None:
    noisy = RUN | {"decode_ms": [[2.0, 2.0], [3.0, 3.0], [2.0, 2.0]]}
    result, _ = measured(monkeypatch, make_artifact(), noisy)
    assert result.spread_ratio == pytest.approx((500 - 1000 / 3) / 500, abs=1e-9)
    assert result.notes == (
        "noisy: decode speed varied by 16.7% in the middle half of the repetitions (above 15%)",
    )


def test_a_lone_slow_repetition_is_no_noise(monkeypatch: pytest.MonkeyPatch, make_artifact: Make) -> None:
    """Its quartiles are 500 and 500 tokens/s, whatever the slowest of five is."""
    lone = RUN | {"decode_ms": [[2.0, 2.0]] * 4 + [[3.0, 3.0]]}
    result, _ = measured(monkeypatch, make_artifact(), lone)
    assert result.notes == ("a slow or fast repetition, which moves no median: decode speeds are 33% apart",)


def test_prefill_that_varies_is_noise_too(monkeypatch: pytest.MonkeyPatch, make_artifact: Make) -> None:
    result, _ = measured(monkeypatch, make_artifact(), RUN | {"first_token_ms": [30.0, 45.0, 60.0]})
    assert "noisy: prefill speed varied by" in result.notes[0]


def test_cut_lengths_are_noted(monkeypatch: pytest.MonkeyPatch, make_artifact: Make) -> None:
    result, asked = measured(monkeypatch, make_artifact(), RUN, decode_tokens=60)
    assert asked["workload"] == Workload(1, 4, 60, repetitions=3, warmup_repetitions=1)
    assert result.conditions.prompt_tokens == 4
    assert "context of 64 tokens: prompt 6 -> 4" in result.notes[0]


@pytest.mark.parametrize("what", ["threads", "pool_threads"])
def test_other_threads_than_asked_for(monkeypatch: pytest.MonkeyPatch, make_artifact: Make, what: str) -> None:
    with pytest.raises(BenchError, match="has 2 threads; expected 1"):
        measured(monkeypatch, make_artifact(), RUN | {what: 2})


def test_nothing_runs_when_a_hash_differs(monkeypatch: pytest.MonkeyPatch, make_artifact: Make) -> None:
    artifact = make_artifact()
    (artifact / "model.onnx").write_bytes(b"something else")
    with pytest.raises(IntegrityError, match=r"model\.onnx: found SHA-256"):
        measured(monkeypatch, artifact, {})


@pytest.mark.parametrize("output", ["", "Killed", "[1, 2]", '{"load_ms": 1}'])
def test_output_that_is_no_result(output: str) -> None:
    with pytest.raises(BenchError, match="the runner wrote no result"):
        parse_answer(output, who="the runner", keys=("decode_ms", "first_token_ms"))


def test_lines_before_the_result_are_passed_over() -> None:
    text = 'a warning\n{"decode_ms": [], "first_token_ms": []}\n'
    assert parse_answer(text, who="the runner") == {"decode_ms": [], "first_token_ms": []}


def test_a_runner_that_fails_shows_its_error(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"(?s)ended with exit code 1:.*absent\.onnx"):
        run_workload(
            graph=tmp_path / "absent.onnx",
            engine="fused",
            workload=Workload(1, 2, 2, repetitions=1, warmup_repetitions=0),
            vocabulary=40,
            bytes_per_token=None,
        )


def test_a_real_run(make_artifact: Make) -> None:
    result = bench(make_artifact(), Workload(1, 8, 4, repetitions=2, warmup_repetitions=1))
    assert [len(row) for row in result.decode_samples_ms] == [4, 4]
    assert len(result.first_token_samples_ms) == 2
    assert result.conditions.threads == 1
    assert result.conditions.providers == ("CPUExecutionProvider",)
    assert result.baseline_rss_bytes is not None
    # Loading can't lower a peak; a stray import of torch in the runner would take over 150 MB.
    assert result.baseline_rss_bytes < result.peak_rss_bytes < 150_000_000
    assert result.ceiling_tokens_per_second is not None
    assert result.decode_tokens_per_second > 0


def test_a_run_of_so_many_seconds(make_artifact: Make) -> None:
    """A few milliseconds a repetition."""
    result = bench(make_artifact(), Workload(1, 8, 4, repetitions=2, warmup_repetitions=1, least_s=0.5))
    assert 2 < len(result.first_token_samples_ms) == len(result.decode_samples_ms)
    assert result.conditions.least_s == 0.5


def test_bench_works_without_torch_and_transformers(make_artifact: Make) -> None:
    """Every module of bench is imported, and a query classified, where both can't be imported."""
    artifact = make_artifact()
    code = f"""
import importlib, pathlib, sys
for name in ("torch", "transformers"):
    sys.modules[name] = None
import edgeicl.bench
for path in pathlib.Path(edgeicl.bench.__file__).parent.glob("*.py"):
    importlib.import_module("edgeicl.bench." + path.stem)
from edgeicl.bench.artifact import open_artifact
from edgeicl.bench.classify import classify
found = classify(open_artifact(pathlib.Path({str(artifact)!r})), dict(premise="w1", hypothesis="w2"), threads=1)
assert len(found.probabilities) == 2
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(stage.__file__).parents[2], timeout=120)


def test_the_runner_imports_nothing_heavy() -> None:
    code = """
import sys
import edgeicl.bench.runner
heavy = {"torch", "transformers", "pydantic", "onnx", "scipy", "tokenizers", "psutil", "rich", "typer"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(stage.__file__).parents[2], timeout=120)
