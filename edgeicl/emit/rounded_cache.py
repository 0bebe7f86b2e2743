"""A cache of transformers that keeps keys and values as an artifact's 8-bit cache does, for the reference.

Written apart from what scales were made with (`quantize.cache`) and from the runtime's kernel, in float64, so
that it shares no mistake with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import DynamicCache

LayerScales = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Of a layer's keys and of its values, [heads, head size] each."""


class RoundedDynamicCache(DynamicCache):  # type: ignore[misc]  # transformers' is untyped
    """What is put in comes out as integers of 8 bits times the channel's scale.

    `exact_first`: but who puts something into an empty cache meets it as it is.
    """

    def __init__(self, scales: Sequence[LayerScales], *, exact_first: bool = False) -> None:
        super().__init__()
        self._scales, self._exact_first = scales, exact_first

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *rest: Any, **named: Any) -> Any:
        keys, values = self._scales[layer_idx]
        exact = self._exact_first and self.get_seq_length(layer_idx) == 0
        read = super().update(_kept(key_states, keys), _kept(value_states, values), layer_idx, *rest, **named)
        return (key_states, value_states) if exact else read


def _kept(numbers: Tensor, scales: NDArray[np.float32]) -> Tensor:
    """[B, heads, T, head size] as they are read back."""
    steps = torch.from_numpy(scales).double()[None, :, None, :]
    codes = torch.round(numbers.double() / steps).clamp(min=-128, max=127)
    return (codes * steps).to(numbers.dtype)
