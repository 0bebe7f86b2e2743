"""What a weight group becomes when it is stored: its tensors, and the values that are read from them again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeicl.errors import DataError
from edgeicl.models.anatomy import WeightGroup
from edgeicl.numerics.affine import QuantizedMatrix, dequantize, round_to_nearest
from edgeicl.numerics.size import blocks_of
from edgeicl.quantize.tensors_file import Announced
from edgeicl.specs.quant_plan import ActivationBits, Format

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


def tensors_of(group: str, stored: Stored, *, activation_bits: ActivationBits = 32) -> dict[str, NDArray[Any]]:
    """The group's tensors of `weights.safetensors` by name: see `quantize`. DataError as `beside_weights`."""
    if not isinstance(stored, QuantizedMatrix):
        return {f"{group}.weight": stored}
    scales = beside_weights(stored.scales, activation_bits)
    tensors: dict[str, NDArray[Any]] = {f"{group}.codes": stored.codes, f"{group}.scales": scales}
    if stored.zero_points is not None:
        tensors[f"{group}.zero_points"] = stored.zero_points
    return tensors


def beside_weights(values: Floats, activation_bits: ActivationBits) -> NDArray[Any]:
    """Scales, biases and all that has no group: of the activations' type. DataError: fp16 can't hold one."""
    return values if activation_bits == 32 else _halves(values)


def announced(
    group: WeightGroup, format_: Format, *, activation_bits: ActivationBits = 32
) -> dict[str, Announced]:
    """Type and shape of what `tensors_of` will give for the group in the format."""
    rows, columns = group.shape
    if not format_.quantized:
        return {f"{group.name}.weight": (f"F{format_.bits}", group.shape)}
    blocks = (rows, blocks_of(columns, format_.block_of(columns)))
    tensors: dict[str, Announced] = {
        f"{group.name}.codes": ("U8", group.shape),
        f"{group.name}.scales": (f"F{activation_bits}", blocks),
    }
    if not format_.symmetric:
        tensors[f"{group.name}.zero_points"] = ("U8", blocks)
    return tensors


def read_stored(tensors: Mapping[str, NDArray[Any]], plan: Mapping[str, Format]) -> dict[str, Stored]:
    """Every group of the plan as it is stored, from what `tensors_of` made."""
    return {
        group: QuantizedMatrix(
            tensors[f"{group}.codes"],
            tensors[f"{group}.scales"].astype(np.float32, copy=False),
            tensors.get(f"{group}.zero_points"),
            format_.bits,
            format_.block_of(tensors[f"{group}.codes"].shape[1]),
        )
        if format_.quantized
        else tensors[f"{group}.weight"]
        for group, format_ in plan.items()
    }


def _halves(matrix: Floats) -> NDArray[np.float16]:
    largest = float(np.abs(matrix).max())
    if largest > _LARGEST_HALF:
        raise DataError(
            f"a number of {largest:g} is too large for 16 bits, which end at {_LARGEST_HALF:g}",
            next_step="take the 16-bit format out of the target, or set its activation_bits to 32",
        )
    return matrix.astype(np.float16)
