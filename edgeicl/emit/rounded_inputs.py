"""Integer products in the independent model: its layers' inputs rounded to 8 bits, token by token."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from edgeicl.models.anatomy import WeightGroup


def round_inputs(model: torch.nn.Module, groups: Iterable[WeightGroup]) -> None:
    """From now on each layer of `model` that holds weights of the groups rounds what it gets."""
    for group in groups:
        for name in group.weights:
            model.get_submodule(name.removesuffix(".weight")).register_forward_pre_hook(_rounded)


def _rounded(layer: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    values = inputs[0]
    largest = values.abs().max(dim=-1, keepdim=True).values
    codes = torch.nan_to_num(values / largest * 127).round().to(torch.int8)
    return (codes.float() * (largest / 127), *inputs[1:])
