"""The independent model that an artifact is compared with: transformers' own, holding the same weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from accelerate import init_empty_weights
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from edgeicl.emit.weights import Floats, QuantizedWeights
from edgeicl.models.anatomy import WeightGroup
from edgeicl.models.architectures.table import anatomy_of

Logits = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


def reference_model(
    config: Mapping[str, Any], weights: QuantizedWeights, *, label_rows: Mapping[int, Floats] | None = None
) -> torch.nn.Module:
    """The causal language model in fp32 and eval mode, every weight set to what the artifact's bytes mean.

    `label_rows` are the rows [H] of the head that the artifact stores apart, by token; the others are the
    table's.
    """
    anatomy = anatomy_of(config)
    known = {key: value for key, value in anatomy.config.items() if key not in _NOT_FOR_THE_REFERENCE}
    # parameters without memory until they are set; buffers, such as those of rotary positions, as they are
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**known))
    model.tie_weights()
    unset = set(dict(model.named_parameters()))

    def set_parameter(name: str, values: npt.NDArray[Any]) -> None:
        _set(model, name, values)
        unset.remove(name)

    for group in anatomy.groups:
        for name, rows in zip(group.weights, _parts(group, weights.dense(group.name)), strict=True):
            set_parameter(name, rows.T if group.transposed else rows)
        if group.biases:
            stacked = weights.tensor(f"{group.name}.bias")
            for name, rows in zip(group.biases, _parts(group, stacked), strict=True):
                set_parameter(name, rows)
    for name in anatomy.others:
        set_parameter(name, weights.tensor(name))
    assert not unset, f"parameters left without values: {sorted(unset)}"
    model.tie_weights()
    if label_rows is not None:
        head = model.lm_head.weight.detach().clone()
        for token, row in label_rows.items():
            head[token] = torch.from_numpy(row)
        model.lm_head.weight = torch.nn.Parameter(head)  # no longer the table's own
    reference: torch.nn.Module = model.eval()
    return reference


# settings of how a model was stored or trained, which have no business in a comparison
_NOT_FOR_THE_REFERENCE = ("torch_dtype", "dtype", "architectures", "transformers_version", "_name_or_path")


def _parts(group: WeightGroup, stacked: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """The rows of each of the group's parameters."""
    return np.split(stacked, np.cumsum(group.parts)[:-1])


def _set(model: torch.nn.Module, name: str, values: npt.NDArray[Any]) -> None:
    shape = tuple(model.get_parameter(name).shape)
    if shape != values.shape:
        raise ValueError(f"{name} is {shape}, its values are {values.shape}")
    module, _, kind = name.rpartition(".")
    setattr(model.get_submodule(module), kind, torch.nn.Parameter(torch.tensor(values, dtype=torch.float32)))


def all_logits(model: torch.nn.Module, before: Array | None = None) -> Callable[[Ids, Ids], Logits]:
    """`model` as a function: ids [B, T] and mask [B, T], padded on the right -> logits [B, T, V].

    `before`, token ids [P] or vectors [P, H], stands before every row and is computed anew each time.
    """
    stands = torch.zeros(0, dtype=torch.int64) if before is None else torch.from_numpy(before)
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator]  # a transformers model

    @torch.inference_mode()
    def run(ids: Ids, mask: Ids) -> Logits:
        first = stands if stands.ndim == 2 else embedding(stands)
        embedded = torch.cat([first.expand(len(ids), -1, -1), embedding(torch.from_numpy(ids))], dim=1)
        seen = torch.cat([torch.ones(len(ids), len(stands), dtype=torch.int64), torch.from_numpy(mask)], dim=1)
        output = model(inputs_embeds=embedded, attention_mask=seen)
        logits: Logits = output.logits[:, len(stands) :].float().numpy()
        return logits

    return run


def last_logits(model: torch.nn.Module, before: Array | None = None) -> Callable[[Ids, Ids], Logits]:
    """Like `all_logits`, but logits [B, V] after each row's last token only, which costs far less.

    What stands `before` is computed once.
    """
    decoder: Any = model.base_model
    head: Any = model.get_output_embeddings()  # type: ignore[operator]  # a transformers model
    past = None if before is None else _cache(decoder, torch.from_numpy(before))
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


@torch.inference_mode()
def _cache(decoder: Any, before: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values [1, heads, P, head_size] of every layer."""
    given = {"input_ids": before[None]} if before.ndim == 1 else {"inputs_embeds": before[None]}
    return [(layer.keys, layer.values) for layer in decoder(**given, use_cache=True).past_key_values.layers]


def _for_batch(past: list[tuple[torch.Tensor, torch.Tensor]], rows: int) -> DynamicCache:
    """A cache for one pass, which writes to it."""
    cache = DynamicCache()
    for index, (keys, values) in enumerate(past):
        cache.update(keys.expand(rows, -1, -1, -1), values.expand(rows, -1, -1, -1), index)
    return cache
