"""The matrices of a whole model whose weight groups are one linear layer each (`architectures.exported`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from edgeicl.models.anatomy import Anatomy

Floats = npt.NDArray[np.float32]


def group_matrices(model: nn.Module, anatomy: Anatomy) -> dict[str, Floats]:
    """Group -> its values [N, K] in the model, whose memory they share."""
    found: dict[str, Floats] = {}
    for group in anatomy.groups:
        values: npt.NDArray[Any] = model.get_parameter(group.weights[0]).detach().numpy()
        found[group.name] = values.T if group.transposed else values
    return found
