"""How far apart two trainings of one model have ended."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file

# What another order of adding floats may do. Measured on two processes: 1.5e-6; on batches of half the
# examples, which is what processes that never averaged their gradients would train on: 0.4.
ROUNDING = 1e-4


def weights_in(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a model's folder."""
    return load_file(folder / "model.safetensors")


def relative_difference(
    one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], start: Mapping[str, torch.Tensor]
) -> float:
    """Norm of the difference between two trained models, over how far the first has moved from `start`.

    Biases of keys are left out: softmax cancels them, so that their gradients are rounding noise, which Adam
    scales up to whole steps.
    """
    first, second, untrained = map(_flat, (one, other, start))
    return float((first - second).norm() / (first - untrained).norm())


def _flat(weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    kept = [weights[name].flatten().double().cpu() for name in sorted(weights) if "k_proj.bias" not in name]
    return torch.cat(kept)
