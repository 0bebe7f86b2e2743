"""The student itself in transformers, with the matrices of its weight groups exchanged."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from edgeicl.emit.weights import QuantizedWeights
from edgeicl.models.anatomy import Anatomy

Floats = npt.NDArray[np.float32]


def group_matrices(model: nn.Module, anatomy: Anatomy) -> dict[str, Floats]:
    """Group -> its values [N, K] in the model."""
    found: dict[str, Floats] = {}
    for group in anatomy.groups:
        values: npt.NDArray[Any] = model.get_parameter(group.weights[0]).detach().numpy()
        found[group.name] = values.T if group.transposed else values
    return found


def put_in(model: nn.Module, anatomy: Anatomy, weights: QuantizedWeights) -> None:
    """Sets every group of the model to what the artifact's bytes mean; the rest stays as it is."""
    for group in anatomy.groups:
        values = torch.from_numpy(weights.dense(group.name))
        model.get_parameter(group.weights[0]).data = values.T if group.transposed else values
