"""What a weight group becomes when it is stored: its tensors, and the values that are read from them again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeicl.errors import DataError
from edgeicl.numerics.affine import dequantize, round_to_nearest
from edgeicl.progress import track
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.quant_plan import Format

Floats = NDArray[np.float32]

_LARGEST_HALF = float(np.finfo(np.float16).max)


def stored_values(matrix: Floats, format_: Format) -> Floats:
    """What `matrix` [N, K] becomes when it is stored in the format and read again, float32.

    Raises:
        DataError: a weight that fp16 can't hold.
    """
    if format_.quantized:
        return dequantize(round_to_nearest(matrix, format_))
    return _halves(matrix).astype(np.float32) if format_.bits == 16 else matrix


def stored_tensors(weights: StudentWeights, plan: Mapping[str, Format]) -> dict[str, NDArray[Any]]:
    """Tensors of `weights.safetensors` by name: see `quantize`."""
    tensors: dict[str, NDArray[Any]] = dict(weights.others)
    with track("rounding weights", len(plan)) as advance:
        for group, format_ in plan.items():
            matrix = weights.matrices[group]
            if format_.quantized:
                rounded = round_to_nearest(matrix, format_)
                tensors |= {f"{group}.codes": rounded.codes, f"{group}.scales": rounded.scales}
                if rounded.zero_points is not None:
                    tensors[f"{group}.zero_points"] = rounded.zero_points
            else:
                tensors[f"{group}.weight"] = _halves(matrix) if format_.bits == 16 else matrix
            if group in weights.biases:
                tensors[f"{group}.bias"] = weights.biases[group]
            advance(1)
    return tensors


def _halves(matrix: Floats) -> NDArray[np.float16]:
    largest = float(np.abs(matrix).max())
    if largest > _LARGEST_HALF:
        raise DataError(
            f"a weight of {largest:g} is too large for 16 bits, which end at {_LARGEST_HALF:g}",
            next_step="take the 16-bit format out of the target, or offer 32 bits",
        )
    return matrix.astype(np.float16)
