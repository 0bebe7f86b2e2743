"""The reference of an artifact that reads prompts with other weights than those it decodes with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from edgeicl.emit.reference import (
    AllLogits,
    Array,
    Ids,
    Logits,
    all_logits,
    embedded,
    key_value_cache,
    reference_model,
)
from edgeicl.emit.weights import QuantizedWeights


def reference_of(
    config: Mapping[str, Any], weights: QuantizedWeights, **settings: Any
) -> Callable[[Array | None], AllLogits]:
    """What stands before every row, if anything does -> the reference; `settings` as for `reference_model`."""
    model = reference_model(config, weights, **settings)
    if weights.plan.prompt_format is None:
        return lambda before: all_logits(model, before, cache_scales=weights.cache_scales())
    prompt_model = reference_model(config, weights, prompts=True, **settings)
    return lambda before: TwoLayouts(prompt_model, model, before)


class TwoLayouts:
    """Logits of prompts by one model, and of the tokens after them by another on the first one's cache.

    `before`, token ids [P] or vectors [P, H], stands before every row; a row is then read by itself.
    """

    def __init__(
        self, prompt_model: torch.nn.Module, token_model: torch.nn.Module, before: Array | None = None
    ) -> None:
        self._prompt_model, self._token_model, self._before = prompt_model, token_model, before

    @torch.inference_mode()
    def __call__(self, ids: Ids, mask: Ids, decoded_tokens: int = 0) -> Logits:
        """Ids and mask [B, T], padded on the right, each row's last `decoded_tokens` decoded -> [B, T, V]."""
        rows = []
        # what stands before is read as a prompt is, so by the token model where it is a single one
        alone = self._before is not None and len(self._before) == 1
        first_of = self._token_model if alone else self._prompt_model
        for row, length in zip(ids, mask.sum(axis=1), strict=True):
            prompt = int(length) - decoded_tokens
            read_together = prompt if self._before is not None else ids.shape[1] - decoded_tokens
            first = self._prompt_model if read_together > 1 else self._token_model
            cache = key_value_cache(first_of, self._before)
            logits = [first(inputs_embeds=embedded(first, row[:prompt]), past_key_values=cache).logits[0]]
            if decoded_tokens:
                inputs = embedded(self._token_model, row[prompt : int(length)])
                logits.append(self._token_model(inputs_embeds=inputs, past_key_values=cache).logits[0])
            found = torch.cat(logits).float().numpy()
            rows.append(np.pad(found, ((0, ids.shape[1] - len(found)), (0, 0))))
        return np.stack(rows)
