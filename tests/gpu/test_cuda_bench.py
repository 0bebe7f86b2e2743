"""Measuring on CUDA: the device, its decoder, torch's rivals. Skipped, with the reason, where there is none.

`EDGEICL_TEST_DEVICE=cpu pytest tests/gpu` runs the same decoder and rivals on the CPU where they can.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeicl.bench.compare import prepare
from edgeicl.bench.devices.address import device_at
from edgeicl.bench.devices.cuda import CUDA, why_no_cuda
from edgeicl.bench.rivals import torch_cuda
from edgeicl.bench.rivals.checkpoint import write_random_checkpoint
from edgeicl.bench.rivals.contender import RivalBuilder
from edgeicl.bench.rivals.rival import Rival
from edgeicl.bench.stage import bench
from edgeicl.bench.workload import Workload
from edgeicl.models.device_decoder import DeviceDecoder
from edgeicl.models.onnx_decoder import OnnxDecoder
from edgeicl.specs.quant_plan import Format
from edgeicl.store import Store, folder_hashes
from tests.unit.bench.conftest import TINY, build_artifact, tiny_task, tiny_tokenizer

CONFIG = TINY | {"hidden_size": 128, "word_embed_proj_dim": 128, "ffn_dim": 256}
ON_CPU = os.environ.get("EDGEICL_TEST_DEVICE") == "cpu"


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """Weights in 4 bits, of which CUDA's kernels take blocks of 32."""
    task = tiny_task({"entailment": "yes", "contradiction": "no"})
    return build_artifact(
        tmp_path / "artifact", CONFIG, Format(bits=4, block_size=32), tiny_tokenizer(), task, scale=5.0
    )


@pytest.fixture
def device() -> str:
    if ON_CPU:
        return "cpu"
    if (reason := why_no_cuda()) is not None:
        pytest.skip(reason)
    return "cuda:0"


def test_logits_are_those_of_the_cpu(device: str, artifact: Path) -> None:
    """Token by token in the same buffers, twice. CUDA adds in another order: within 1 % of the norm."""
    there = DeviceDecoder(artifact / "model.onnx", threads=1, context_tokens=32, device=device)
    here = OnnxDecoder(artifact / "model.onnx", threads=1, context_tokens=32)
    for prompt in ([5, 6, 7, 8, 9], [11, 4]):
        ids = np.array([prompt])
        pairs = [(there.prefill(ids), here.prefill(ids))]
        pairs += [(there.decode([token]), here.decode([token])) for token in range(10, 30)]
        for found, expected in pairs:
            assert np.linalg.norm(found - expected) < 0.01 * np.linalg.norm(expected)
        # Negative control: the step before is further away than that.
        assert np.linalg.norm(pairs[-1][0] - pairs[-2][1]) > 0.01 * np.linalg.norm(pairs[-2][1])


def test_a_measurement_on_cuda(artifact: Path) -> None:
    if (reason := why_no_cuda()) is not None:
        pytest.skip(reason)
    found = bench(artifact, Workload(1, 16, 8), device=device_at("cuda"))
    assert found.fidelity == "measured"
    assert found.conditions.providers[0] == CUDA
    assert found.ceiling_tokens_per_second is None  # of the host's memory, which a GPU doesn't read
    assert any("bound once, on cuda:0" in note for note in found.notes)
    assert any("no CUDA graph" in note for note in found.notes)


def there_is(rival: Rival) -> Rival:
    """The rival as it is, or on the CPU; a skip with the reason where it can run on neither."""
    if not ON_CPU:
        if not torch.cuda.is_available():
            pytest.skip("torch finds no CUDA device")
        return rival
    if rival.settings["weights"] != "bf16":
        pytest.skip("8 and 4 bits need CUDA")
    return replace(rival, settings={**rival.settings, "device": "cpu"})


@pytest.mark.parametrize("rival", torch_cuda.RIVALS, ids=lambda rival: rival.name)
def test_each_rival_computes_the_student(rival: Rival, tmp_path: Path) -> None:
    rival = there_is(rival)
    checkpoint = write_random_checkpoint(tmp_path / "student", CONFIG)
    python = Path(sys.executable)
    builder = RivalBuilder(
        checkpoint=checkpoint,
        checkpoint_digests=folder_hashes(checkpoint),
        vocabulary=CONFIG["vocab_size"],
        context_tokens=48,
        store=Store(tmp_path / "store"),
        pythons={"transformers": python, "bitsandbytes": python},
    )
    contender = builder.contender(rival, builder.reference())
    run = contender.measure(Workload(1, 6, 5, repetitions=2), vocabulary=40)
    assert [len(steps) for steps in run["decode_ms"]] == [5, 5]


def test_a_comparison_on_cuda(artifact: Path, tmp_path: Path) -> None:
    if (reason := why_no_cuda()) is not None:
        pytest.skip(reason)
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    contest = prepare(
        [artifact],
        Workload(1, 8, 4, repetitions=1),
        rivals=[rival.name for rival in torch_cuda.RIVALS],
        model=None,
        store=Store(tmp_path / "store"),
        device=device_at("cuda"),
    )
    found = contest.run(2)
    assert [entry.name for entry in found.rivals] == [rival.name for rival in torch_cuda.RIVALS]
    assert found.conditions.providers[0] == CUDA
    assert found.bandwidth_bytes_per_second is None
