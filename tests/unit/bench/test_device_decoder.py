"""The decoder of GPUs, run on the CPU: the same bindings, so the same logits as OnnxDecoder's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeicl.bench.devices.address import device_at
from edgeicl.bench.devices.cuda import CUDA, CudaDevice, CudaWorkbench
from edgeicl.bench.devices.device import Limits
from edgeicl.bench.stage import bench
from edgeicl.bench.workload import Workload
from edgeicl.bench.workload_run import engine_on
from edgeicl.errors import BenchError, SpecError
from edgeicl.models.device_decoder import DeviceDecoder
from edgeicl.models.onnx_decoder import OnnxDecoder

Make = Callable[..., Path]
CONTEXT = 24


@pytest.fixture
def graph(make_artifact: Make) -> Path:
    return make_artifact() / "model.onnx"


TOKENS = st.lists(st.integers(0, 39), min_size=1, max_size=10)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prompts=st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=3), before=st.integers(0, 4))
def test_logits_are_those_of_the_cpu_decoder(
    graph: Path, prompts: list[tuple[list[int], list[int]]], before: int
) -> None:
    """Token by token, prompt after prompt in the same buffers, with and without a prefix."""
    there = DeviceDecoder(graph, threads=1, context_tokens=CONTEXT, device="cpu")
    here = OnnxDecoder(graph, threads=1, context_tokens=CONTEXT)
    if before:
        rows = np.random.default_rng(before).normal(size=(4, 2, before, 16)).astype(np.float32)
        names = [f"past_key_values.{n}.{kind}" for n in range(2) for kind in ("key", "value")]
        for decoder in (there, here):
            decoder.load_prefix(dict(zip(names, rows, strict=True)))
    for prompt, steps in prompts:
        ids = np.array([prompt])
        found, expected = there.prefill(ids), here.prefill(ids)
        assert np.array_equal(found, expected)
        for token in steps:
            previous = found
            found, expected = there.decode([token]), here.decode([token])
            assert np.array_equal(found, expected)
            assert not np.array_equal(found, previous)  # a result is not overwritten by the next


def test_depths_are_those_of_the_cpu_decoder(graph: Path) -> None:
    there = DeviceDecoder(graph, threads=1, context_tokens=CONTEXT, device="cpu")
    here = OnnxDecoder(graph, threads=1, context_tokens=CONTEXT)
    for tokens in (5, 0, 3):
        there.stand_at(tokens)
        here.stand_at(tokens)
        assert np.array_equal(there.prefill(np.array([[7, 8]])), here.prefill(np.array([[7, 8]])))


def test_a_full_context_and_other_shapes_are_refused(graph: Path) -> None:
    decoder = DeviceDecoder(graph, threads=1, context_tokens=2, device="cpu")
    with pytest.raises(ValueError, match=r"shape \[1, 3\]; expected \[1, 1\.\.2\]"):
        decoder.prefill(np.array([[5, 6, 7]]))
    decoder.prefill(np.array([[5, 6]]))
    with pytest.raises(ValueError, match="context of 2 tokens is full"):
        decoder.decode([7])
    with pytest.raises(ValueError, match="a prefix of 1 arrays"):
        decoder.load_prefix({"past_key_values.0.key": np.zeros((2, 1, 16), np.float32)})


def without_cuda() -> None:
    if CUDA in ort.get_available_providers():
        pytest.skip("onnxruntime has a CUDA provider here")


def test_a_fallback_to_the_cpu_is_refused(graph: Path) -> None:
    without_cuda()
    with pytest.raises(
        RuntimeError, match=r"cuda:0 can't run .*: onnxruntime fell back to CPUExecutionProvider"
    ):
        DeviceDecoder(graph, threads=1, context_tokens=8, device="cuda:0")


def test_without_cuda_the_reason_and_what_to_install(make_artifact: Make) -> None:
    without_cuda()
    with pytest.raises(
        BenchError, match=r'(?s)cuda: onnxruntime .* has no CUDAE.*pip install "edgeicl\[cuda\]"'
    ):
        bench(make_artifact(), Workload(1, 4, 2), device=device_at("cuda"))


def test_no_other_program_runs_beside_the_gpu() -> None:
    with pytest.raises(BenchError, match=r"answers runs on processors alone\nnext: use --on local"):
        CudaWorkbench().run("answers", {}, timeout_s=1)


def test_addresses_of_gpus() -> None:
    device = device_at("cuda:1")
    assert (device.fidelity, device.provider) == ("measured", "cuda")
    assert (engine_on(device, "fused"), engine_on(device_at("cuda"), "fused")) == ("cuda:1", "cuda:0")
    with pytest.raises(BenchError, match="grow from step to step"):
        engine_on(device, "growing")
    assert isinstance(device, CudaDevice)
    assert device.number == 1
    with pytest.raises(SpecError, match=r"cuda:x; expected cuda, or cuda:NUMBER"):
        device_at("cuda:x")
    with pytest.raises(SpecError, match="limits of a GPU"):
        device_at("cuda", Limits(cores=(0,)))
    assert engine_on(device_at("local"), "growing") == "growing"
