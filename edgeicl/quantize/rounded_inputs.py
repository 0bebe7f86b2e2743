"""Weights as their kernels compute with them: integer products round their inputs as well.

Each token's row of inputs is rounded to 8 bits by its own largest magnitude, as the emitted graph does it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeicl.specs.quant_plan import Format

_LARGEST_CODE = 127


@dataclass(frozen=True, eq=False)
class IntegerMatrix:
    """Values [N, K] of a matrix whose inputs are rounded before they meet it."""

    values: Tensor


Matrix = Tensor | IntegerMatrix
"""What a weight group is computed with."""


def as_computed(values: NDArray[np.float32], format_: Format) -> Matrix:
    """`values` [N, K], stored in the format and read again, as its kernel takes them."""
    matrix = torch.from_numpy(values)
    return IntegerMatrix(matrix) if format_.by_row else matrix


def product(rows: Tensor, matrix: Matrix, bias: Tensor | None = None) -> Tensor:
    """`rows` [T, K] times the matrix [N, K] transposed, plus `bias` [N] -> [T, N]."""
    if isinstance(matrix, IntegerMatrix):
        return F.linear(rounded(rows), matrix.values, bias)
    return F.linear(rows, matrix, bias)


def rounded(rows: Tensor) -> Tensor:
    """`rows` [T, K] on 255 levels between minus and plus each row's largest magnitude."""
    step = rows.abs().amax(dim=-1, keepdim=True).clamp_min(1e-30) / _LARGEST_CODE
    return torch.round(rows / step) * step
