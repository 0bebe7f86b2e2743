"""The reference of an artifact that reads prompts otherwise than the tokens that it decodes.

With other weights, or beside a cache of integers, which first prompts meet before they are rounded; or both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from edgeicl.emit.reference import (
    AllLogits,
    Array,
    Ids,
    Logits,
    all_logits,
    embedded,
    fill_cache,
    reference_model,
)
from edgeicl.emit.rounded_cache import LayerScales, RoundedDynamicCache
from edgeicl.emit.weights import QuantizedWeights


def reference_of(
    config: Mapping[str, Any], weights: QuantizedWeights, **settings: Any
) -> Callable[[Array | None], AllLogits]:
    """What stands before every row, if anything does -> the reference; `settings` as for `reference_model`."""
    model, scales = reference_model(config, weights, **settings), weights.cache_scales()
    plan = weights.plan
    if plan.prompt_format is None and not plan.rounds_after_prompts:
        return lambda before: all_logits(model, before, cache_scales=scales)
    prompt_model = model
    if plan.prompt_format is not None:
        prompt_model = reference_model(config, weights, prompts=True, **settings)
    return lambda before: PromptsApart(prompt_model, model, before, cache_scales=scales)


class PromptsApart:
    """Logits of prompts by one model, and of the tokens after them by another on the first one's cache.

    `before`, token ids [P] or vectors [P, H], stands before every row; a row is then read by itself. With
    `cache_scales` keys and values are rounded, for all but what several tokens read first.
    """

    def __init__(
        self,
        prompt_model: torch.nn.Module,
        token_model: torch.nn.Module,
        before: Array | None = None,
        *,
        cache_scales: Sequence[LayerScales] | None = None,
    ) -> None:
        self._prompt_model, self._token_model, self._before = prompt_model, token_model, before
        self._cache_scales = cache_scales

    @torch.inference_mode()
    def __call__(self, ids: Ids, mask: Ids, decoded_tokens: int = 0) -> Logits:
        """Ids and mask [B, T], padded on the right, each row's last `decoded_tokens` decoded -> [B, T, V]."""
        rows = []
        # what stands before is read as a prompt is, so by the token model where it is a single one
        first_read = ids.shape[1] - decoded_tokens if self._before is None else len(self._before)
        first_of = self._prompt_model if first_read > 1 else self._token_model
        for row, length in zip(ids, mask.sum(axis=1), strict=True):
            prompt = int(length) - decoded_tokens
            read_together = first_read if self._before is None else prompt
            first = self._prompt_model if read_together > 1 else self._token_model
            cache = fill_cache(first_of, self._before, self._empty_cache(exact_first=first_read > 1))
            logits = [first(inputs_embeds=embedded(first, row[:prompt]), past_key_values=cache).logits[0]]
            if decoded_tokens:
                inputs = embedded(self._token_model, row[prompt : int(length)])
                logits.append(self._token_model(inputs_embeds=inputs, past_key_values=cache).logits[0])
            found = torch.cat(logits).float().numpy()
            rows.append(np.pad(found, ((0, ids.shape[1] - len(found)), (0, 0))))
        return np.stack(rows)

    def _empty_cache(self, *, exact_first: bool) -> DynamicCache:
        if self._cache_scales is None:
            return DynamicCache()
        return RoundedDynamicCache(self._cache_scales, exact_first=exact_first)
