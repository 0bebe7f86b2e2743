"""Keys and values of a demonstration set, computed once and shared by all queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel


Before = Sequence[int] | NDArray[Any]
"""What stands before a query: token ids, or vectors [P, H] in the place of token embeddings."""


@dataclass(frozen=True)
class Prefix:
    """Per layer the keys and values [1, heads, P, width] of the P tokens that stand before every query."""

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    tokens: int

    def for_batch(self, rows: int) -> DynamicCache:
        """A cache of `rows` rows for one forward pass; the prefix itself is never written to."""
        from transformers import DynamicCache

        cache = DynamicCache()
        for index, (keys, values) in enumerate(self.layers):
            shape = (rows, *keys.shape[1:])
            cache.update(keys.expand(shape), values.expand(shape), index)
        return cache


@torch.inference_mode()
def encode_prefix(model: PreTrainedModel, before: Before) -> Prefix:
    """One pass of `model` over `before`, keeping keys and values only."""
    values = torch.from_numpy(np.asarray(before))[None].to(model.device)
    if values.ndim == 3:
        cache = model.base_model(inputs_embeds=values.to(model.dtype), use_cache=True).past_key_values
    else:
        cache = model.base_model(input_ids=values, use_cache=True).past_key_values
    layers = tuple((layer.keys, layer.values) for layer in cache.layers)
    return Prefix(layers, len(before))
