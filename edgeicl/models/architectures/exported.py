"""The anatomy of a model that has no row in the table: read off transformers' own, for Optimum to export.

Weight groups are its linear layers, each alone and by the name it has there, then the token embedding and,
where it isn't tied, the head. Nothing is known of how they follow each other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

from edgeicl.errors import DataError
from edgeicl.models.anatomy import EMBEDDING, HEAD, Anatomy, WeightGroup, weight_group
from edgeicl.models.architectures.checked_config import special_ids
from edgeicl.models.exporter import exporter_python, exporter_versions, exports

# The graph without its tensors, at most. Found: 85 kB at 2 layers (Gemma, Mistral), 35 kB for each of them.
_GRAPH_BYTES = 32 * 1024
_GRAPH_BYTES_PER_LAYER = 40 * 1024
_NO_LIMIT_OF_POSITIONS = 1 << 20  # ALiBi and the like
# What is done to logits after the head, unless it has this value: the recipe layer reads them off the head.
_AFTER_THE_HEAD = {"final_logit_softcapping": (None,), "logits_scaling": (None, 1), "logit_scale": (None, 1)}


@dataclass(frozen=True)
class ExportedAnatomy(Anatomy):
    """A model whose graph Optimum writes."""

    def activation_bytes(self, prompt_tokens: int) -> int:
        """Bytes while a prompt is read, at their peak.

        Beside the widest layer's: logits of every position, attention scores, which are computed in parts, and
        the cache a second time, as keys and values grow by being copied.
        """
        widths = 2 * self.widest + 6 * self.hidden
        scores = 3 * self.heads * prompt_tokens**2
        grown = 2 * self.layers * self.kv_width * prompt_tokens
        return 4 * (max(prompt_tokens * widths + scores, prompt_tokens * self.vocabulary) + grown)

    @property
    def widest(self) -> int:
        """Outputs of the widest linear layer."""
        return max(group.shape[0] for group in self.groups if group.name not in (EMBEDDING, HEAD))


def anatomy(config: Mapping[str, Any], known: str) -> Anatomy:
    """The anatomy of a model of any type that Optimum exports; `known` are the types it isn't needed for.

    Raises:
        DataError: a type that transformers or Optimum doesn't know, or no Optimum; an unsupported setting.
    """
    model_type, python = str(config["model_type"]), exporter_python()
    lowered = f"model type {model_type!r} is not supported; expected one of {known}"
    try:
        exporter_versions(python)
    except DataError as error:
        raise DataError(
            f"{lowered}, or Optimum's exporter, which takes others: {error.args[0]}", next_step=error.next_step
        ) from error
    if not exports(model_type, python):
        raise DataError(
            f"{lowered}, or one that Optimum exports as text-generation-with-past, which this is not",
            next_step="name a student of another type in the recipe",
        )
    return read_anatomy(json.dumps(dict(config), sort_keys=True))


@lru_cache(maxsize=8)
def read_anatomy(config_json: str) -> Anatomy:
    """The anatomy of the model with this config.json, whoever may export it. DataError as `anatomy`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.pytorch_utils import Conv1D

    config = json.loads(config_json)
    changed = [key for key, plain in _AFTER_THE_HEAD.items() if config.get(key) not in plain]
    if changed:
        raise DataError(
            f"this {config['model_type']} model is not supported: "
            + "; ".join(f"{key} = {config[key]!r}" for key in changed)
            + " (expected logits as the head gives them)",
            next_step="use a model without these settings",
        )
    try:
        full = AutoConfig.for_model(**config)
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(full)
    except (ValueError, KeyError, AttributeError) as error:
        raise DataError(
            f"transformers has no causal language model for this config.json: {error}",
            next_step="name a student of another type in the recipe",
        ) from error
    model.tie_weights()
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = head.weight is table.weight
    names = {module: name for name, module in model.named_modules()}
    groups: list[WeightGroup] = []
    for module, name in names.items():
        if module is head or not isinstance(module, (torch.nn.Linear, Conv1D)):
            continue
        transposed = isinstance(module, Conv1D)
        rows, columns = reversed(module.weight.shape) if transposed else module.weight.shape
        groups.append(weight_group(name, (name,), (rows,), columns, transposed=transposed))
    vocabulary, width = table.weight.shape
    groups.append(weight_group(EMBEDDING, (names[table],), (vocabulary,), width))
    if not tied:
        groups.append(weight_group(HEAD, (names[head],), (vocabulary,), width))
    of_groups = {weight for group in groups for weight in group.weights}
    hidden, heads = int(full.hidden_size), int(full.num_attention_heads)
    layers = int(full.num_hidden_layers)
    buffers = sum(prod(buffer.shape) * buffer.element_size() for buffer in model.buffers())
    return ExportedAnatomy(
        model_type=str(full.model_type),
        causal_lm=type(model).__name__,
        config=config,
        layers=layers,
        hidden=hidden,
        heads=heads,
        kv_heads=int(getattr(full, "num_key_value_heads", None) or heads),
        head_size=int(getattr(full, "head_dim", None) or hidden // heads),
        positions=int(getattr(full, "max_position_embeddings", None) or _NO_LIMIT_OF_POSITIONS),
        vocabulary=int(head.weight.shape[0]),
        groups=tuple(groups),
        others={name: tuple(p.shape) for name, p in model.named_parameters() if name not in of_groups},
        special_ids=special_ids({**full.to_dict(), **config}, {}),
        prefix=f"{model.base_model_prefix}.",
        graph_bytes=_GRAPH_BYTES + _GRAPH_BYTES_PER_LAYER * layers + buffers,
    )
