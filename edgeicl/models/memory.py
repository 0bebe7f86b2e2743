"""Whether a model and what it computes with fit in memory, looked at before it is loaded."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil
import torch

from edgeicl.errors import DataError
from edgeicl.models.configuration import config_number
from edgeicl.models.model_folder import parameter_shapes

LoadIn = Literal["fp32", "bf16", "8bit", "4bit"]

# bitsandbytes keeps one fp32 scale for 64 weights of 4 bits.
_BYTES_PER_WEIGHT = {"fp32": 4.0, "bf16": 2.0, "8bit": 1.0, "4bit": 0.5 + 4 / 64}
_FP16_BYTES = 2.0
# What bitsandbytes leaves in fp16: embeddings and head, by the names that architectures give them.
_LAYER = re.compile(r"(^|\.)(layers|h)\.\d+\.")
_NOT_QUANTIZED = ("embed", "lm_head", "wte", "wpe")
_LOADING_RATIO = 1.05  # the loader's own buffers beside the weights
# Of one layer's activations, in widths of the model: the residual stream, its norm, queries, keys, values, the
# output of attention before and after its projection, and one that is on its way. As many of the widest layer
# in between: before and after the nonlinearity.
_WIDTHS_OF_HIDDEN = 8
_WIDTHS_OF_FFN = 2


@dataclass(frozen=True)
class Scoring:
    """What a model is to compute at once.

    `prefix_tokens`: of the longest context. `pass_tokens`: of the largest pack of queries, or of a longer
    query. `full_logits`: tokens of a pass that need a logit of every word.
    """

    prefix_tokens: int
    pass_tokens: int
    full_logits: int


def check_memory(
    folder: Path, load_in: LoadIn, *, available_bytes: int, scoring: Scoring | None = None, shards: int = 1
) -> None:
    """DataError if the model, and what it needs for `scoring`, don't fit in `available_bytes`; says what would.

    `shards`: processes that share the layers' weights.
    """
    weights = needed_bytes(folder, load_in, shards=shards)
    working = scoring_bytes(folder, load_in, scoring) if scoring else 0
    if weights + working <= available_bytes:
        return
    smaller = [name for name, size in _BYTES_PER_WEIGHT.items() if size < _BYTES_PER_WEIGHT[load_in]]
    count = sum(map(math.prod, parameter_shapes(folder).values()))
    beside = f", and its keys, values and activations {working:,}" * bool(working)
    steps = [f"set load_in: {smaller[0]}"] if smaller else ["take a smaller model"]
    if scoring and working > weights // 2:
        steps.append("lower distill.demonstrations.count")
    if shards == 1 and load_in in ("fp32", "bf16"):
        steps.append("share its weights among several processes (FSDP by `accelerate config`)")
    raise DataError(
        f"{folder}: {count:,} weights in {load_in} need about {weights:,} bytes of memory"
        f"{f' a process with {shards} processes' * (shards > 1)}{beside}; found {available_bytes:,} available",
        next_step=f"{', or '.join(steps)}, or free memory",
    )


def needed_bytes(folder: Path, load_in: LoadIn, *, shards: int = 1) -> int:
    """Bytes that the weights of the model in `folder` take once they are loaded, about.

    With `shards` processes each holds all that lies outside of layers, its share of the layers, and, while
    it computes, one whole layer.
    """

    def bytes_each(name: str, shape: tuple[int, ...]) -> float:
        quantizes = load_in in ("8bit", "4bit")
        left = len(shape) < 2 or any(part in name for part in _NOT_QUANTIZED)
        return _FP16_BYTES if quantizes and left else _BYTES_PER_WEIGHT[load_in]

    outside = 0.0
    layers: dict[str, float] = {}
    for name, shape in parameter_shapes(folder).items():
        size = math.prod(shape) * bytes_each(name, shape)
        if shards > 1 and (numbered := _LAYER.search(name)):
            layers[numbered.group()] = layers.get(numbered.group(), 0.0) + size
        else:
            outside += size
    held = outside + sum(layers.values()) / shards + max(layers.values(), default=0.0)
    return int(held * _LOADING_RATIO)


def scoring_bytes(folder: Path, load_in: LoadIn, scoring: Scoring) -> int:
    """Bytes that the model in `folder` takes for `scoring` beside its weights, about.

    Keys and values of the prefix in every layer, and of prefix and pass in the one at work; activations of
    the prefix or of a pass; a pass's mask, once as it is and once as it is made; logits in the model's type,
    in fp32 and as log-probabilities.
    """
    each = 4 if load_in == "fp32" else 2
    hidden, layers = config_number(folder, "hidden_size"), config_number(folder, "num_hidden_layers")
    shapes = parameter_shapes(folder)
    widest = max(shape[0] for name, shape in shapes.items() if len(shape) == 2 and _LAYER.search(name))
    together = scoring.prefix_tokens + scoring.pass_tokens
    cache = 2 * hidden * each * (layers * scoring.prefix_tokens + together)
    width = _WIDTHS_OF_HIDDEN * hidden + _WIDTHS_OF_FFN * widest
    activations = max(scoring.prefix_tokens, scoring.pass_tokens) * width * each
    mask = 2 * scoring.pass_tokens * together * each
    logits = scoring.full_logits * config_number(folder, "vocab_size") * (each + 4 + 4)
    return cache + activations + mask + logits


def available_bytes(device: torch.device) -> int:
    """Bytes that a model loaded on `device` could take."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    # What torch holds without using it counts as taken to the driver, yet torch would use it first.
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + cached
