"""How many bytes a model takes, by hand, and how many there are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from edgeicl.errors import DataError
from edgeicl.models.memory import Scoring, available_bytes, check_memory, needed_bytes, scoring_bytes

# 64,000 weights of embeddings and head, 10,000 in linear layers, 100 of a bias.
SHAPES = {
    "model.decoder.embed_tokens.weight": (100, 320),
    "lm_head.weight": (100, 320),
    "model.decoder.layers.0.fc1.weight": (100, 100),
    "model.decoder.layers.0.fc1.bias": (100,),
}


CONFIG = {"model_type": "opt", "hidden_size": 320, "num_hidden_layers": 1, "vocab_size": 100}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_file({name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}, tmp_path / "m.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
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
    with pytest.raises(DataError, match="next: set load_in: bf16, or share its weights"):
        check_memory(model, "fp32", available_bytes=100)
    with pytest.raises(DataError, match="next: take a smaller model, or free memory"):
        check_memory(model, "4bit", available_bytes=100)


def test_keys_values_and_activations_by_hand(model: Path) -> None:
    """10 tokens before, 4 in a pass: keys and values of 1 layer of 320, and of one that holds both."""
    scoring = Scoring(prefix_tokens=10, pass_tokens=4, full_logits=3)
    cache = 2 * 320 * (10 + 14)
    activations = 10 * (8 * 320 + 2 * 100)
    mask = 2 * 4 * 14
    assert scoring_bytes(model, "fp32", scoring) == 4 * (cache + activations + mask) + 3 * 100 * 12
    assert scoring_bytes(model, "bf16", scoring) == 2 * (cache + activations + mask) + 3 * 100 * 10


def test_what_it_computes_with_counts_too(model: Path) -> None:
    scoring = Scoring(prefix_tokens=2000, pass_tokens=256, full_logits=0)
    needed, working = needed_bytes(model, "fp32"), scoring_bytes(model, "fp32", scoring)
    check_memory(model, "fp32", available_bytes=needed + working, scoring=scoring)
    with pytest.raises(
        DataError,
        match=rf"keys, values and activations {working:,}; .*\n.*or lower distill.demonstrations.count",
    ):
        check_memory(model, "fp32", available_bytes=needed + working - 1, scoring=scoring)


def test_shared_layers_take_a_share_and_one_whole_layer(model: Path) -> None:
    """Of 40,400 bytes in the one layer."""
    outside, layer = 4 * 64_000, 4 * 10_100
    assert needed_bytes(model, "fp32", shards=4) == int(1.05 * (outside + layer / 4 + layer))
    check_memory(model, "fp32", available_bytes=400_000, shards=4)
    with pytest.raises(DataError, match="a process with 4 processes"):
        check_memory(model, "fp32", available_bytes=300_000, shards=4)


def test_what_torch_holds_unused_counts_as_available(monkeypatch: pytest.MonkeyPatch) -> None:
    """A card of 100 bytes: 30 taken by others, 50 held by torch, of which tensors use 15."""
    for name, value in (("mem_get_info", (20, 100)), ("memory_reserved", 50), ("memory_allocated", 15)):
        monkeypatch.setattr(torch.cuda, name, lambda _, value=value: value)
    assert available_bytes(torch.device("cuda")) == 55
    assert available_bytes(torch.device("cpu")) > 55
