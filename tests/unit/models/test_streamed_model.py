"""A model whose weights are read in every pass computes what the loaded one does, and holds none of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgeicl.errors import DataError
from edgeicl.models.loading import load_model
from edgeicl.models.streamed_model import load_streamed
from tests.unit.tiny_models import VARIANTS, make_model

IDS = torch.tensor([[5, 9, 13, 4], [8, 7, 6, 3]])


@torch.inference_mode()
@pytest.mark.parametrize("variant", VARIANTS)
def test_computes_what_the_loaded_model_does(variant: str, tmp_path: Path) -> None:
    folder = make_model(tmp_path, variant)
    model, expected = load_streamed(folder), load_model(folder)
    for _ in range(2):
        assert torch.equal(model(IDS).logits, expected(IDS).logits)
        assert all(parameter.device.type == "meta" for parameter in model.parameters())


@torch.inference_mode()
def test_weights_are_those_of_the_files_now(tmp_path: Path) -> None:
    """Negative control: with the files gone nothing can be computed."""
    folder = make_model(tmp_path, "opt")
    model = load_streamed(folder)
    model(IDS)
    (folder / "model.safetensors").unlink()
    with pytest.raises(DataError, match=r"model\.safetensors can't be read"):
        model(IDS)
