"""Keys and values as 8-bit integers, as onnxruntime's GroupQueryAttention keeps them with PER_CHANNEL scales.

    number ≈ code * scale,   code in -128 .. 127,   one scale for each of the D numbers of each head

What is read back is what attention computes with, in a prompt as in decoding: a token's key is rounded when it
enters the cache, before anything attends to it. Source: the operator's definition; that prompts see rounded
numbers was found by experiment with onnxruntime 1.31 (the tests compare codes and outputs).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

LOWEST_CODE, HIGHEST_CODE = -128, 127


def channel_scales(largest: Floats) -> Floats:
    """Scales for channels whose absolute numbers reach `largest`, of any shape; 1 for channels of zeros."""
    scales: Floats = (np.where(largest > 0, largest, HIGHEST_CODE) / HIGHEST_CODE).astype(np.float32)
    return scales


def cache_codes(values: Floats, scales: Floats) -> NDArray[np.int8]:
    """The nearest codes of `values`; `scales` broadcasts to them. What lies outside the range is clipped."""
    codes: NDArray[np.int8] = np.clip(np.rint(values / scales), LOWEST_CODE, HIGHEST_CODE).astype(np.int8)
    return codes


def read_back(codes: NDArray[np.int8], scales: Floats) -> Floats:
    """What attention computes with."""
    return codes.astype(np.float32) * scales
