"""torch's rivals on CUDA: their code on the CPU where torch allows, and what is told without a GPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgeicl.bench.compare import prepare
from edgeicl.bench.devices.address import device_at
from edgeicl.bench.rivals import table
from edgeicl.bench.rivals.checkpoint import write_random_checkpoint
from edgeicl.bench.rivals.contender import RivalBuilder
from edgeicl.bench.rivals.rival import Rival
from edgeicl.bench.workload import Workload
from edgeicl.errors import BenchError, SpecError
from edgeicl.store import Store, folder_hashes
from tests.unit.bench.conftest import TINY

Make = Callable[..., Path]


def builder(folder: Path) -> RivalBuilder:
    config = TINY | {"hidden_size": 128, "word_embed_proj_dim": 128, "ffn_dim": 256}
    checkpoint = write_random_checkpoint(folder / "student", config)
    python = Path(sys.executable)
    return RivalBuilder(
        checkpoint=checkpoint,
        checkpoint_digests=folder_hashes(checkpoint),
        vocabulary=40,
        context_tokens=48,
        store=Store(folder / "store"),
        pythons={"transformers": python, "bitsandbytes": python},
    )


def on_the_cpu(name: str) -> Rival:
    rival = table.RIVALS[name]
    return replace(rival, settings={**rival.settings, "device": "cpu"})


@pytest.mark.parametrize("name", ["cuda-eager-bf16", "cuda-compiled-bf16"])
def test_logits_are_the_student_s(name: str, tmp_path: Path) -> None:
    """Prompt and steps through the rival's program; bf16 rounds to 8 bits of mantissa."""
    made = builder(tmp_path)
    contender = made.contender(on_the_cpu(name), made.reference())
    assert 0 < contender.logit_error <= 0.05
    if name == "cuda-compiled-bf16":
        return  # a second process compiles anew, which takes half a minute
    run = contender.measure(Workload(1, 6, 3, repetitions=2, warmup_repetitions=0), vocabulary=40)
    assert [len(steps) for steps in run["decode_ms"]] == [3, 3]


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch finds a CUDA device")
@pytest.mark.parametrize("name", ["cuda-eager-bf16", "cuda-bitsandbytes-nf4"])
def test_without_a_gpu_the_reason_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"(?s)build ended with exit code 1.*finds no CUDA device"):
        builder(tmp_path).built(table.RIVALS[name])


def test_processors_are_not_mixed(make_artifact: Make, tmp_path: Path) -> None:
    artifact = make_artifact()

    def asked(on: str, rivals: list[str]) -> None:
        prepare(
            [artifact],
            Workload(1, 4, 2),
            rivals=rivals,
            model=None,
            store=Store(tmp_path / "store"),
            device=device_at(on),
        )

    with pytest.raises(SpecError, match=r"cuda-eager-bf16 runs on cuda, the artifacts on cpu.*or --on cuda"):
        asked("local", ["hf-fp32", "cuda-eager-bf16"])
    with pytest.raises(SpecError, match=r"hf-fp32 runs on cpu, the artifacts on cuda; expected any of cuda-e"):
        asked("cuda", ["hf-fp32"])
