"""Keys and values of a demonstration set, computed once and shared by all queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Prefix:
    """Per layer the keys and values [1, heads, P, width] of the P tokens that stand before every query."""

    layers: tuple[tuple[Tensor, Tensor], ...]
    tokens: int

    def for_batch(self, rows: int) -> DynamicCache:
        """A cache of `rows` rows for one forward pass; the prefix itself is never written to, nor copied."""
        cache = DynamicCache()
        cache.layers = [
            _PrefixLayer(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1))
            for keys, values in self.layers
        ]
        return cache


class _PrefixLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, before which a pass's own are put without being kept.

    What the library keeps for a next token, which never comes, would be as large as the prefix once more.
    """

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


@torch.inference_mode()
def encode_prefix(model: PreTrainedModel, ids: Sequence[int]) -> Prefix:
    """One pass of `model` over `ids`, keeping keys and values only."""
    tokens = torch.tensor([list(ids)], device=model.device)
    cache = model.base_model(input_ids=tokens, use_cache=True).past_key_values
    layers = tuple((layer.keys, layer.values) for layer in cache.layers)
    return Prefix(layers, len(ids))
