"""Ratios on paper, an unknown or absent rival, and checkpoints of random weights."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

import edgeicl.bench.compare as comparing
from edgeicl.bench.compare import compare, ratio
from edgeicl.bench.rival import exporter_versions, write_random_checkpoint
from edgeicl.bench.workload import Workload
from edgeicl.errors import BenchError, DataError, IntegrityError, SpecError
from edgeicl.specs.comparison import Comparison
from edgeicl.store import Store

Make = Callable[..., Path]
WORKLOAD = Workload(1, 4, 2, repetitions=1, warmup_repetitions=0)


def test_ratios_are_of_pairs() -> None:
    found = ratio([10.0, 30.0, 20.0], [5.0, 10.0, 5.0])
    assert found.values == (2.0, 3.0, 4.0)
    assert (found.median, found.low, found.high) == (3.0, 2.0, 4.0)


def run_of(decode_ms: float, *, peak: int) -> dict[str, Any]:
    return {
        "load_ms": 1.0, "first_token_ms": [10.0], "decode_ms": [[decode_ms, decode_ms]],
        "peak_rss_bytes": peak, "threads": 1, "pool_threads": 1, "providers": ["CPUExecutionProvider"],
        "prefix_tokens": 0,
        "runtime": "onnxruntime", "runtime_version": "1", "machine": "m", "processor": "p", "logical_cores": 2,
        "bandwidth": {"memory": {"add": 3e9, "copy": 4e9}, "token": {"add": 9e9}},
    }  # fmt: skip


def compared(
    monkeypatch: pytest.MonkeyPatch, artifact: Path, tmp_path: Path, rival_ms: list[float]
) -> tuple[Comparison, list[str]]:
    order: list[str] = []
    rival_graph = tmp_path / "rival.onnx"
    rival_graph.write_bytes(b"12345")
    remaining = iter(rival_ms)

    def fake_run(*, engine: str, **_: Any) -> dict[str, Any]:
        order.append(engine)
        return run_of(2.0, peak=100) if engine == "fused" else run_of(next(remaining), peak=400)

    monkeypatch.setattr(comparing, "run_local", fake_run)
    monkeypatch.setattr(comparing, "build_rival", lambda *_, **__: rival_graph)
    result = compare(
        artifact,
        WORKLOAD,
        rival="optimum-int8",
        model=None,
        store=Store(tmp_path / "store"),
        rounds=len(rival_ms),
    )
    return result, order


def test_rounds_alternate(monkeypatch: pytest.MonkeyPatch, make_artifact: Make, tmp_path: Path) -> None:
    result, order = compared(monkeypatch, make_artifact(), tmp_path, [8.0, 8.0])
    assert order == ["fused", "growing", "fused", "growing"]
    assert result.decode_ratio.values == (4.0, 4.0)
    assert result.peak_rss_ratio.median == 0.25
    assert result.prefill_ratio.median == 1.0
    assert result.rival.file_bytes == 5
    assert result.bandwidth_bytes_per_second == 4e9
    assert "random weights of the same shape" in result.rival.description
    assert "int8/block32" in result.ours.description
    assert result.notes == ()


def test_rounds_that_disagree_are_noted(
    monkeypatch: pytest.MonkeyPatch, make_artifact: Make, tmp_path: Path
) -> None:
    result, _ = compared(monkeypatch, make_artifact(), tmp_path, [6.0, 8.0, 10.0])
    assert result.notes == ("noisy: the decode ratio lies between 3.00 and 5.00; something else was running",)


def test_an_unknown_rival(make_artifact: Make, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"there is no rival 'optimum'; expected one of optimum-int8"):
        compare(make_artifact(), WORKLOAD, rival="optimum", model=None, store=Store(tmp_path))


def test_a_damaged_artifact_is_refused_first(make_artifact: Make, tmp_path: Path) -> None:
    artifact = make_artifact()
    (artifact / "config.json").write_text("{}")
    with pytest.raises(IntegrityError, match=r"config\.json: found"):
        compare(artifact, WORKLOAD, rival="optimum-int8", model=None, store=Store(tmp_path))


def test_an_absent_exporter_says_how_to_install_it(tmp_path: Path) -> None:
    """An interpreter without site-packages has no optimum, whatever this environment has."""
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    with pytest.raises(BenchError, match=r'(?s)optimum-onnx is not installed.*pip install "edgeicl\[export\]"'):
        exporter_versions(bare)


def test_a_model_folder_without_a_model(make_artifact: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is no model folder: found no config\.json"):
        compare(
            make_artifact(), WORKLOAD, rival="optimum-int8", model=tmp_path, store=Store(tmp_path / "store")
        )


def test_a_checkpoint_of_another_shape(make_artifact: Make, tmp_path: Path) -> None:
    artifact = make_artifact()
    config = json.loads((artifact / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(DataError, match=r"another shape(?s:.*)layers: found 3, the artifact has 2"):
        compare(artifact, WORKLOAD, rival="optimum-int8", model=tmp_path, store=Store(tmp_path / "store"))


def test_an_interpreter_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"absent can't be run: No such file"):
        exporter_versions(tmp_path / "absent")


def test_random_checkpoints_are_the_same_every_time(tmp_path: Path) -> None:
    config = {
        "model_type": "opt", "hidden_size": 8, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 1,
        "vocab_size": 10, "max_position_embeddings": 6,
    }  # fmt: skip
    first = load_file(write_random_checkpoint(tmp_path / "1", config) / "model.safetensors")
    second = load_file(write_random_checkpoint(tmp_path / "2", config) / "model.safetensors")
    assert {name: value.tolist() for name, value in first.items()} == {
        name: value.tolist() for name, value in second.items()
    }
    assert first["model.decoder.embed_positions.weight"].shape == (8, 8)
    assert first["model.decoder.layers.0.fc1.weight"].shape == (16, 8)
    assert first["model.decoder.layers.0.final_layer_norm.weight"].tolist() == [1.0] * 8
    # Parameters on paper: 8 x 10 tokens, 8 x 8 positions, 4 x (64 + 8), 128 + 16, 128 + 8, 3 norms of 16.
    assert sum(value.size for value in first.values()) == 80 + 64 + 4 * 72 + 144 + 136 + 48
