"""Checkpoints under all their names, and those that can't be used."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgeicl.errors import DataError
from edgeicl.quantize.student_weights import StudentWeights, read_weights

EMBEDDING = "model.decoder.embed_tokens.weight"


@pytest.fixture
def checkpoint(student: Path, tmp_path: Path) -> tuple[Path, dict[str, torch.Tensor]]:
    shutil.copy(student / "config.json", tmp_path)
    return tmp_path, load_file(student / "model.safetensors")


def _write(folder: Path, tensors: dict[str, torch.Tensor]) -> StudentWeights:
    save_file(tensors, folder / "model.safetensors")
    return read_weights(folder)


def test_rows_are_stacked_in_the_order_of_query_key_value(checkpoint, weights: StudentWeights) -> None:
    _, tensors = checkpoint
    at = "model.decoder.layers.1.self_attn"
    expected = np.concatenate([tensors[f"{at}.{x}_proj.weight"].numpy() for x in "qkv"])
    assert np.array_equal(weights.matrices["layers.1.attention.qkv"], expected)
    assert weights.biases["layers.1.attention.qkv"].shape == (96,)
    assert "embedding" not in weights.biases


@pytest.mark.parametrize("head", ["stored", "left out"])
@pytest.mark.parametrize("prefix", ["model.decoder.", "decoder."])
def test_older_names_and_tied_heads(checkpoint, weights: StudentWeights, prefix: str, head: str) -> None:
    folder, tensors = checkpoint
    tensors.pop("lm_head.weight", None)
    renamed = {name.replace("model.decoder.", prefix): value for name, value in tensors.items()}
    if head == "stored":
        renamed["lm_head.weight"] = tensors[EMBEDDING].clone()
    found = _write(folder, renamed)
    assert found.matrices.keys() == weights.matrices.keys()
    assert all(np.array_equal(found.matrices[name], weights.matrices[name]) for name in weights.matrices)


def test_bfloat16_checkpoints_are_read_as_fp32(checkpoint, weights: StudentWeights) -> None:
    folder, tensors = checkpoint
    found = _write(folder, {name: value.bfloat16() for name, value in tensors.items()})
    assert found.matrices["embedding"].dtype == np.float32
    assert np.allclose(found.matrices["embedding"], weights.matrices["embedding"], rtol=2**-8, atol=0)


def test_everything_wrong_is_named_at_once(checkpoint) -> None:
    folder, tensors = checkpoint
    del tensors["model.decoder.layers.0.fc1.bias"]
    tensors["model.decoder.layers.1.fc2.weight"] = torch.zeros(32, 60)
    tensors["model.decoder.final_layer_norm.weight"][3] = float("nan")
    with pytest.raises(DataError) as caught:
        _write(folder, tensors)
    message = str(caught.value)
    assert "layers.0.fc1.bias is missing" in message
    assert "layers.1.fc2.weight has shape (32, 60), expected (32, 64)" in message
    assert "model.decoder.final_layer_norm.weight holds NaN or infinity" in message


def test_an_untied_head_is_refused(checkpoint) -> None:
    folder, tensors = checkpoint
    tensors["lm_head.weight"] = tensors[EMBEDDING] + 1
    with pytest.raises(DataError, match=r"lm_head\.weight differs from the token embedding"):
        _write(folder, tensors)


def test_a_folder_without_weights_is_refused(student: Path, tmp_path: Path) -> None:
    shutil.copy(student / "config.json", tmp_path)
    with pytest.raises(DataError, match=r"has no model\.safetensors"):
        read_weights(tmp_path)
