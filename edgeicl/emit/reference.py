"""The independent model that an artifact is compared with: transformers' own, holding the same weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from transformers import DynamicCache

from edgeicl.emit.rounded_cache import LayerScales, RoundedDynamicCache
from edgeicl.emit.weights import Floats, QuantizedWeights
from edgeicl.models.anatomy import EMBEDDING, Anatomy, WeightGroup
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.checkpoint import TIED_HEAD
from edgeicl.models.streamed_model import streamed_model
from edgeicl.models.threads import fit_threads

Logits = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


def reference_model(
    config: Mapping[str, Any],
    weights: QuantizedWeights,
    *,
    label_rows: Mapping[int, Floats] | None = None,
    prompts: bool = False,
) -> torch.nn.Module:
    """The causal language model in fp32 and eval mode, every weight what the artifact's bytes mean.

    A pass holds the weights of one group at a time. `label_rows` are the rows [H] of the head that the
    artifact stores apart, by token; the others are the table's. `prompts`: with the weights that prompts are
    read with, where those are others.
    """
    anatomy = anatomy_of(config)
    fit_threads(anatomy.parameters)
    parameters = _Parameters(anatomy, weights.dense_for_prompts if prompts else weights.dense, weights)

    def read(name: str) -> torch.Tensor:
        if name != TIED_HEAD or not anatomy.tied:
            return parameters[name]
        head = parameters[anatomy.group(EMBEDDING).weights[0]]
        if label_rows is not None:
            head = head.clone()
            for token, row in label_rows.items():
                head[token] = torch.from_numpy(row)
        return head

    reference: torch.nn.Module = streamed_model(anatomy.config, read)
    return reference


class _Parameters:
    """Values of the model's parameters by name, from the groups they are stacked in."""

    def __init__(self, anatomy: Anatomy, dense: Callable[[str], Floats], weights: QuantizedWeights) -> None:
        self._dense = dense
        self._weights = weights
        self._others = anatomy.others
        self._places: dict[str, tuple[WeightGroup, int]] = {}
        for group in anatomy.groups:
            for names in (group.weights, group.biases):
                self._places |= {name: (group, part) for part, name in enumerate(names)}
        self._last: tuple[str, list[Array]] = ("", [])

    def __getitem__(self, name: str) -> torch.Tensor:
        if name in self._others:
            return torch.from_numpy(self._weights.tensor(name))
        group, part = self._places[name]
        rows = self._parts(group, bias=name in group.biases)[part]
        return torch.from_numpy(rows.T if group.transposed else rows)

    def _parts(self, group: WeightGroup, *, bias: bool) -> list[Array]:
        """The rows of each of the group's parameters; those of one group are asked for one after the other."""
        stored = f"{group.name}.bias" if bias else group.name
        if self._last[0] != stored:
            self._last = ("", [])
            stacked = self._weights.tensor(stored) if bias else self._dense(stored)
            self._last = (stored, np.split(stacked, np.cumsum(group.parts)[:-1]))
        return self._last[1]


class AllLogits(Protocol):
    """Ids [B, T] and mask [B, T], padded on the right, each row's last tokens decoded -> logits [B, T, V]."""

    def __call__(self, ids: Ids, mask: Ids, decoded_tokens: int = 0) -> Logits: ...


def all_logits(
    model: torch.nn.Module,
    before: Array | None = None,
    *,
    cache_scales: Sequence[LayerScales] | None = None,
) -> AllLogits:
    """`model` as a function, for which it makes no difference which tokens are decoded.

    `before`, token ids [P] or vectors [P, H], stands before every row and is computed anew each time. With
    `cache_scales` keys and values are rounded as an 8-bit cache does it.
    """
    stands = torch.zeros(0, dtype=torch.int64) if before is None else torch.from_numpy(before)
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]  # a transformers model

    @torch.inference_mode()
    def run(ids: Ids, mask: Ids, decoded_tokens: int = 0) -> Logits:
        first = stands if stands.ndim == 2 else embedding(stands)
        embedded = torch.cat([first.expand(len(ids), -1, -1), embedding(torch.from_numpy(ids))], dim=1)
        seen = torch.cat([torch.ones(len(ids), len(stands), dtype=torch.int64), torch.from_numpy(mask)], dim=1)
        cache = {} if cache_scales is None else {"past_key_values": RoundedDynamicCache(cache_scales)}
        output = model(inputs_embeds=embedded, attention_mask=seen, use_cache=cache_scales is not None, **cache)
        logits: Logits = output.logits[:, len(stands) :].float().numpy()
        return logits

    return run


def last_logits(model: torch.nn.Module, before: Array | None = None) -> Callable[[Ids, Ids], Logits]:
    """Like `all_logits`, but logits [B, V] after each row's last token only, which costs far less.

    What stands `before` is computed once.
    """
    decoder: Any = model.base_model
    head: Any = model.get_output_embeddings()  # type: ignore[operator]  # a transformers model
    past = None if before is None else fill_cache(model, before, DynamicCache())
    count = 0 if before is None else len(before)

    @torch.inference_mode()
    def run(ids: Ids, mask: Ids) -> Logits:
        seen = np.concatenate([np.ones((len(ids), count), np.int64), mask], axis=1)
        hidden = decoder(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(seen),
            past_key_values=None if past is None else _for_batch(past, len(ids)),
            use_cache=past is not None,
        ).last_hidden_state
        last = torch.from_numpy(mask.sum(axis=1) - 1)
        logits: Logits = head(hidden[torch.arange(len(ids)), last]).float().numpy()
        return logits

    return run


def embedded(model: torch.nn.Module, ids: Ids) -> torch.Tensor:
    """Rows [1, T, E] of the model's embedding for ids [T]."""
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]  # a transformers model
    rows: torch.Tensor = embedding(torch.from_numpy(ids))[None]
    return rows


@torch.inference_mode()
def fill_cache(model: torch.nn.Module, before: Array | None, cache: DynamicCache) -> DynamicCache:
    """The same cache, which then holds what stands before a row, if anything does."""
    decoder: Any = model.base_model
    if before is not None:
        rows = torch.from_numpy(before)[None]
        decoder(
            **{"input_ids" if before.ndim == 1 else "inputs_embeds": rows},
            past_key_values=cache,
            use_cache=True,
        )
    return cache


def _for_batch(past: DynamicCache, rows: int) -> DynamicCache:
    """A cache for one pass, which writes to it."""
    cache = DynamicCache()
    for index, layer in enumerate(past.layers):
        cache.update(layer.keys.expand(rows, -1, -1, -1), layer.values.expand(rows, -1, -1, -1), index)
    return cache
