"""The student itself in transformers, with the matrices of its weight groups exchanged."""

from __future__ import annotations

import torch
from torch import nn

from edgeicl.emit.weights import QuantizedWeights
from edgeicl.models.anatomy import Anatomy


def put_in(model: nn.Module, anatomy: Anatomy, weights: QuantizedWeights) -> None:
    """Sets every group of the model to what the artifact's bytes mean; the rest stays as it is."""
    for group in anatomy.groups:
        values = torch.from_numpy(weights.dense(group.name))
        model.get_parameter(group.weights[0]).data = values.T if group.transposed else values
