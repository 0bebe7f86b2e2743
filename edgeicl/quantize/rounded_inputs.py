"""Weights as their kernels compute with them: integer products round their inputs as well.

A matrix's inputs are rounded to 8 bits in one step for all tokens where `input_steps` found one for it, and
otherwise each token's row by its own largest magnitude; the emitted graph does the same. Inputs out of a ReLU
have all codes for themselves, where others need half of them for what is negative.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeicl.specs.quant_plan import Format

LOWEST_CODE, LARGEST_CODE = -128, 127
LARGEST_RECTIFIED_CODE = 255
_SMALLEST_MAXIMUM = 1e-30


@dataclass(frozen=True, eq=False)
class IntegerMatrix:
    """Values [N, K] of a matrix whose inputs are rounded before they meet it.

    `input_step`: of all tokens; None where each has its own. `rectified`: whether no input is negative.
    """

    values: Tensor
    input_step: float | None = None
    rectified: bool = False


Matrix = Tensor | IntegerMatrix
"""What a weight group is computed with."""


def as_computed(
    values: NDArray[np.float32], format_: Format, input_step: float | None = None, *, rectified: bool = False
) -> Matrix:
    """`values` [N, K], stored in the format and read again, as its kernel takes them."""
    matrix = torch.from_numpy(values)
    return IntegerMatrix(matrix, input_step, rectified) if format_.by_row else matrix


def product(rows: Tensor, matrix: Matrix, bias: Tensor | None = None) -> Tensor:
    """`rows` [T, K] times the matrix [N, K] transposed, plus `bias` [N] -> [T, N]."""
    if isinstance(matrix, IntegerMatrix):
        return F.linear(rounded(rows, matrix.input_step, matrix.rectified), matrix.values, bias)
    return F.linear(rows, matrix, bias)


def rounded(rows: Tensor, step: float | None = None, rectified: bool = False) -> Tensor:
    """`rows` [T, K] on 256 levels of one step; without it, of each row's own, up to its largest magnitude.

    `rectified`: no row has anything negative, and no level is.
    """
    lowest, largest = (0, LARGEST_RECTIFIED_CODE) if rectified else (LOWEST_CODE, LARGEST_CODE)
    if step is not None:
        return torch.round(rows / step).clamp(lowest, largest) * step
    own = rows.abs().amax(dim=-1, keepdim=True).clamp_min(_SMALLEST_MAXIMUM) / largest
    return torch.round(rows / own) * own
