"""How many bytes a model takes, by hand, and how many there are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from edgeicl.errors import DataError
from edgeicl.models.memory import available_bytes, check_memory, needed_bytes

# 64,000 weights of embeddings and head, 10,000 in linear layers, 100 of a bias.
SHAPES = {
    "model.decoder.embed_tokens.weight": (100, 320),
    "lm_head.weight": (100, 320),
    "model.decoder.layers.0.fc1.weight": (100, 100),
    "model.decoder.layers.0.fc1.bias": (100,),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_file({name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}, tmp_path / "m.safetensors")
    return tmp_path


@pytest.mark.parametrize(
    ("load_in", "weights_bytes"),
    [
        ("fp32", 4 * 74_100),
        ("bf16", 2 * 74_100),
        ("8bit", 2 * 64_100 + 10_000),
        ("4bit", 2 * 64_100 + 5_000 + 4 * 10_000 / 64),
    ],
)
def test_embeddings_and_head_stay_in_16_bits(model: Path, load_in: str, weights_bytes: float) -> None:
    needed = needed_bytes(model, load_in)  # type: ignore[arg-type]
    assert needed == pytest.approx(1.05 * weights_bytes, abs=1)
    check_memory(model, load_in, available_bytes=needed)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=f"74,100 weights in {load_in} need about {needed:,} bytes"):
        check_memory(model, load_in, available_bytes=needed - 1)  # type: ignore[arg-type]


def test_the_next_smaller_loading_is_proposed(model: Path) -> None:
    with pytest.raises(DataError, match="next: set load_in: bf16"):
        check_memory(model, "fp32", available_bytes=100)
    with pytest.raises(DataError, match="next: take a smaller model, or free memory"):
        check_memory(model, "4bit", available_bytes=100)


def test_what_torch_holds_unused_counts_as_available(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card of 100 bytes: 30 taken by others, 50 held by torch, of which tensors use 15."""
    for name, value in (("mem_get_info", (20, 100)), ("memory_reserved", 50), ("memory_allocated", 15)):
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    assert available_bytes(torch.device("cuda")) == 55
    assert available_bytes(torch.device("cpu")) > 55
