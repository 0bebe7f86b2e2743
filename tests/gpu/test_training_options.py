"""Training options that need CUDA. Skipped, with the reason, where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

from edgeicl.distill.adapter import adapted
from edgeicl.distill.label_reader import LabelReader
from tests.killed_training import killed_before
from tests.trained_weights import relative_difference
from tests.training_memory import ADAPTERS, SAVING, measured
from tests.unit.distill.conftest import tiny_opt
from tests.unit.distill.test_trainer import distill

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")
# Bounds, not yet measured: 8-bit moments and 16-bit passes, of how far training moves the weights.
NEAR = {"adamw_8bit": 0.2, "fp16": 0.2, "bf16": 0.3}


def trained(folder: Path | None = None, *, adapter: str = "none", **changes: object) -> LabelReader:
    AcceleratorState._reset_state(reset_partial_state=True)
    # Wide enough for bitsandbytes, which keeps tensors below 4,096 weights in fp32.
    reader = LabelReader(tiny_opt(seed=8, width=128).cuda())
    with adapted(reader.model, adapter, rank=4, alpha=8):  # type: ignore[arg-type]
        losses = distill(reader, folder, **changes)
    assert losses[-1] < losses[0]
    return reader


@CUDA
@pytest.mark.parametrize(
    "changes",
    [{"optimizer": "adamw_8bit"}, {"mixed_precision": "fp16"}, {"mixed_precision": "bf16"}],
    ids=lambda changes: next(iter(changes.values())),
)
def test_training_ends_near_where_it_ends_in_fp32(changes: dict[str, str], tmp_path: Path) -> None:
    start = dict(LabelReader(tiny_opt(seed=8, width=128)).state_dict())
    full, other = dict(trained().state_dict()), dict(trained(**changes).state_dict())
    difference = relative_difference(full, other, start)
    assert 0 < difference < NEAR[next(iter(changes.values()))]


@CUDA
@pytest.mark.parametrize(
    "changes", [{"optimizer": "adamw_8bit"}, {"mixed_precision": "fp16"}, {"gradient_checkpointing": True}]
)
def test_a_killed_training_goes_on(
    changes: dict[str, object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(adapter="lora", **changes)
    with killed_before(5):
        trained(tmp_path, adapter="lora", **changes)
    resumed = trained(tmp_path, adapter="lora", **changes)
    start = dict(LabelReader(tiny_opt(seed=8, width=128)).state_dict())
    assert relative_difference(whole.state_dict(), resumed.state_dict(), start) < 1e-2


@CUDA
@pytest.mark.skipif(
    "EDGEICL_TEST_MODEL" not in os.environ, reason="EDGEICL_TEST_MODEL names no OPT-125M-shaped model's folder"
)
def test_adapters_save_memory() -> None:
    folder = Path(os.environ["EDGEICL_TEST_MODEL"])
    peak = {kind: measured(kind, folder, steps=3, device="cuda")["peak_bytes"] for kind in ADAPTERS}
    assert peak["lora"] < (1 - SAVING) * peak["none"]
    assert peak["bitfit"] < (1 - SAVING) * peak["none"]
