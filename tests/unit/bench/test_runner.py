"""The measuring loop, with engines whose every step is known; the runner as a device runs it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeicl.bench.devices.programs import program_files
from edgeicl.bench.protocol import time_repetition, token_trace
from edgeicl.models.growing_decoder import GrowingDecoder

Make = Callable[..., Path]


class CountingDecoder:
    """Writes down what it is asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[int]]] = []

    def prefill(self, input_ids: Any) -> None:
        assert input_ids.shape[0] == 1
        self.calls.append(("prefill", input_ids[0].tolist()))

    def decode(self, token_ids: Any) -> None:
        self.calls.append(("decode", token_ids.tolist()))

    def reset(self) -> None:
        self.calls.append(("reset", []))


def test_one_repetition_step_by_step() -> None:
    decoder = CountingDecoder()
    first_token_ms, steps_ms = time_repetition(decoder, np.array([5, 6, 7, 8]), prompt_tokens=2)
    assert decoder.calls == [("reset", []), ("prefill", [5, 6]), ("decode", [7]), ("decode", [8])]
    assert first_token_ms > 0
    assert len(steps_ms) == 2


@pytest.mark.parametrize("vocabulary", [2, 40, 50272])
def test_the_trace_is_fixed_and_within_the_vocabulary(vocabulary: int) -> None:
    trace = token_trace(200, vocabulary)
    assert trace.tolist() == token_trace(200, vocabulary).tolist()
    assert 0 <= trace.min() <= trace.max() < vocabulary
    if vocabulary > 1000:
        assert len(set(trace.tolist())) > 190


def summing_graph(path: Path) -> Path:
    """A decoder with a growing cache: it keeps the tokens, and its logits are their sum times 0, 1, 2."""
    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "axes"], ["column"]),
        helper.make_node("Concat", ["past_key_values.0.key", "column"], ["present.0.key"], axis=2),
        helper.make_node("ReduceSum", ["present.0.key"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["steps", "sum"], ["logits"]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 3]),
        helper.make_tensor("steps", TensorProto.FLOAT, [1, 1, 3], [0.0, 1.0, 2.0]),
    ]
    graph = helper.make_graph(
        nodes,
        "summing",
        [
            value("input_ids", TensorProto.INT64, [1, "T"]),
            value("attention_mask", TensorProto.INT64, [1, "P"]),
            value("past_key_values.0.key", TensorProto.FLOAT, [1, 1, "past", 1]),
        ],
        [
            value("logits", TensorProto.FLOAT, [1, 1, 3]),
            value("present.0.key", TensorProto.FLOAT, [1, 1, "all", 1]),
        ],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return path


def test_a_growing_cache_is_handed_on_and_dropped(tmp_path: Path) -> None:
    decoder = GrowingDecoder(summing_graph(tmp_path / "model.onnx"), threads=1, context_tokens=5)
    assert decoder.prefill(np.array([[1, 2]])).tolist() == [[0.0, 3.0, 6.0]]
    assert decoder.decode([10]).tolist() == [[0.0, 13.0, 26.0]]
    assert decoder.decode([20]).tolist() == [[0.0, 33.0, 66.0]]
    assert decoder.prefill(np.array([[7]])).tolist() == [[0.0, 7.0, 14.0]]
    with pytest.raises(ValueError, match="context of 5 tokens is full"):
        decoder.prefill(np.ones((1, 6), np.int64))


def test_the_files_run_side_by_side_as_on_a_device(make_artifact: Make, tmp_path: Path) -> None:
    """Copied beside each other, isolated from the package, the request in a file."""
    for name, path in program_files().items():
        shutil.copy(path, tmp_path / name)
    request = {
        "model": str(make_artifact() / "model.onnx"),
        "engine": "fused",
        "threads": 1,
        "prompt_tokens": 4,
        "decode_tokens": 3,
        "repetitions": 2,
        "warmup_repetitions": 1,
        "least_s": 0.0,
        "vocabulary": 40,
        "bytes_per_token": 100_000,
        "prefix": None,
    }
    (tmp_path / "request.json").write_text(json.dumps(request))
    # `-S` leaves site-packages out, so edgeicl can't be found; what the runner needs is put back by hand.
    code = (
        f"import sys; sys.path += [{str(tmp_path)!r}, {str(Path(np.__file__).parents[1])!r}]; "
        "sys.modules['edgeicl'] = None; import runner; runner.main()"
    )
    finished = subprocess.run(
        [sys.executable, "-S", "-c", code, str(tmp_path / "request.json")],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        timeout=120,
    )
    result = json.loads(finished.stdout.splitlines()[-1])
    assert [len(row) for row in result["decode_ms"]] == [3, 3]
    assert set(result["bandwidth"]) == {"memory", "token"}
