"""Whether a model fits in memory, looked at before it is loaded."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import psutil
import torch

from edgeicl.errors import DataError
from edgeicl.models.model_folder import parameter_shapes

LoadIn = Literal["fp32", "bf16", "8bit", "4bit"]

# bitsandbytes keeps one fp32 scale for 64 weights of 4 bits.
_BYTES_PER_WEIGHT = {"fp32": 4.0, "bf16": 2.0, "8bit": 1.0, "4bit": 0.5 + 4 / 64}
_FP16_BYTES = 2.0
# What bitsandbytes leaves in fp16: embeddings and head, by the names that architectures give them.
_NOT_QUANTIZED = ("embed", "lm_head", "wte", "wpe")
_WORKING_MEMORY_RATIO = 1.15  # activations and the loader's own buffers beside the weights


def check_memory(folder: Path, load_in: LoadIn, *, available_bytes: int) -> None:
    """DataError if the weights don't fit in `available_bytes`, with what would."""
    needed = needed_bytes(folder, load_in)
    if needed <= available_bytes:
        return
    smaller = [name for name, size in _BYTES_PER_WEIGHT.items() if size < _BYTES_PER_WEIGHT[load_in]]
    weights = sum(map(math.prod, parameter_shapes(folder).values()))
    raise DataError(
        f"{folder}: {weights:,} weights in {load_in} need about {needed:,} bytes of memory; "
        f"found {available_bytes:,} available",
        next_step=f"set load_in: {smaller[0]}, or free memory"
        if smaller
        else "free memory, or take a smaller model",
    )


def needed_bytes(folder: Path, load_in: LoadIn) -> int:
    """Bytes that the model in `folder` takes once it is loaded, about."""

    def bytes_each(name: str, shape: tuple[int, ...]) -> float:
        quantizes = load_in in ("8bit", "4bit")
        left = len(shape) < 2 or any(part in name for part in _NOT_QUANTIZED)
        return _FP16_BYTES if quantizes and left else _BYTES_PER_WEIGHT[load_in]

    shapes = parameter_shapes(folder)
    weights = sum(math.prod(shape) * bytes_each(name, shape) for name, shape in shapes.items())
    return int(weights * _WORKING_MEMORY_RATIO)


def available_bytes(device: torch.device) -> int:
    """Bytes that a model loaded on `device` could take."""
    if device.type != "cuda":
        return int(psutil.virtual_memory().available)
    # What torch holds without using it counts as taken to the driver, yet torch would use it first.
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + cached
