"""Rotary positions (RoFormer, arXiv 2104.09864): how far queries and keys turn from one token to the next."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

_DEFAULT_THETA = 10000.0
_TYPES = ("default", "linear", "llama3")


def rotary_problem(config: Mapping[str, Any]) -> str | None:
    """What edgeicl doesn't know how to compute, if anything."""
    parameters = _parameters(config)
    if parameters["rope_type"] not in _TYPES:
        return f"rope_type = {parameters['rope_type']!r} (expected one of {', '.join(_TYPES)})"
    part = parameters.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    return None if part in (None, 1, 1.0) else f"partial_rotary_factor = {part} (expected 1)"


def inverse_frequencies(config: Mapping[str, Any], head_size: int) -> Tensor:
    """Radians [head_size / 2] from one token to the next, fp32.

    `linear` divides all by a factor (arXiv 2306.15595); `llama3` only the slow ones, with a smooth change
    between (Llama 3.1, arXiv 2407.21783: the wavelengths that the original context holds stay as they are).
    """
    import torch

    parameters = _parameters(config)
    # in fp32 and in this order, as every implementation does: at position 40,000 the last digit shows
    exponents = torch.arange(0, head_size, 2, dtype=torch.int64).float() / head_size
    radians: Tensor = 1.0 / (float(parameters["rope_theta"]) ** exponents)
    if parameters["rope_type"] == "default":
        return radians
    slowed = radians / float(parameters["factor"])
    if parameters["rope_type"] == "linear":
        return slowed
    low, high = float(parameters["low_freq_factor"]), float(parameters["high_freq_factor"])
    turns = float(parameters["original_max_position_embeddings"]) * radians / (2 * math.pi)
    share = ((turns - low) / (high - low)).clamp(0, 1)  # of what stays as it is
    return (1 - share) * slowed + share * radians


def _parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Of `rope_parameters` (transformers 5), or of `rope_theta` and `rope_scaling` (before it)."""
    found = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    theta = config.get("rope_theta")
    found.setdefault("rope_theta", _DEFAULT_THETA if theta is None else theta)
    found.setdefault("rope_type", found.get("type", "default"))
    return found
