"""What a weight group becomes when it is stored: its tensors, and the values that are read from them again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeicl.errors import DataError
from edgeicl.numerics.affine import QuantizedMatrix, dequantize, round_to_nearest
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.quant_plan import Format

Floats = NDArray[np.float32]
Stored = QuantizedMatrix | NDArray[np.float16] | NDArray[np.float32]
Quantizer = Callable[[Floats, Format], QuantizedMatrix]

_LARGEST_HALF = float(np.finfo(np.float16).max)


def stored_matrix(matrix: Floats, format_: Format, quantizer: Quantizer = round_to_nearest) -> Stored:
    """`matrix` [N, K] as it lies in the artifact.

    Raises:
        DataError: a weight that fp16 can't hold.
    """
    if format_.quantized:
        return quantizer(matrix, format_)
    return _halves(matrix) if format_.bits == 16 else matrix


def read_again(stored: Stored) -> Floats:
    """float32 [N, K]: what the kernels compute with."""
    return dequantize(stored) if isinstance(stored, QuantizedMatrix) else stored.astype(np.float32, copy=False)


def stored_values(matrix: Floats, format_: Format, quantizer: Quantizer = round_to_nearest) -> Floats:
    """What `matrix` [N, K] becomes when it is stored in the format and read again, float32."""
    return read_again(stored_matrix(matrix, format_, quantizer))


def stored_tensors(weights: StudentWeights, stored: Mapping[str, Stored]) -> dict[str, NDArray[Any]]:
    """Tensors of `weights.safetensors` by name (see `quantize`) for every group as it is `stored`."""
    tensors: dict[str, NDArray[Any]] = dict(weights.others)
    for group, matrix in stored.items():
        if isinstance(matrix, QuantizedMatrix):
            tensors |= {f"{group}.codes": matrix.codes, f"{group}.scales": matrix.scales}
            if matrix.zero_points is not None:
                tensors[f"{group}.zero_points"] = matrix.zero_points
        else:
            tensors[f"{group}.weight"] = matrix
        if group in weights.biases:
            tensors[f"{group}.bias"] = weights.biases[group]
    return tensors


def prompt_copy(weights: StudentWeights, format_: Format) -> dict[str, NDArray[Any]]:
    """Tensors of the layers' groups as they are stored once more for prompts, rounded to nearest."""
    tensors: dict[str, NDArray[Any]] = {}
    for group in weights.groups:
        if group.layer is not None:
            copy = round_to_nearest(weights.matrices[group.name], format_)
            tensors |= {f"prompt.{group.name}.codes": copy.codes, f"prompt.{group.name}.scales": copy.scales}
    return tensors


def _halves(matrix: Floats) -> NDArray[np.float16]:
    largest = float(np.abs(matrix).max())
    if largest > _LARGEST_HALF:
        raise DataError(
            f"a weight of {largest:g} is too large for 16 bits, which end at {_LARGEST_HALF:g}",
            next_step="take the 16-bit format out of the target, or offer 32 bits",
        )
    return matrix.astype(np.float16)
