"""Floating-point operations of one prompt, as the artifact's graph computes it: a multiply-add is two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeicl.models.anatomy import opt_config, weight_groups


def prompt_flops(config: Mapping[str, Any], *, tokens: int, before: int = 0, logits: int | None = None) -> int:
    """FLOPs until the logits after a prompt of `tokens`, with keys and values of `before` tokens in the cache.

    Matrix products and attention; norms and activations are left out. Behind its attention the last layer goes
    on with the last token alone, and so does the head, of `logits` tokens (the whole vocabulary unless given).
    """
    full = opt_config(config)
    layers, hidden = int(full["num_hidden_layers"]), int(full["hidden_size"])
    products = 0
    for group in weight_groups(full):
        alone = group.layer is None or (group.layer == layers - 1 and not group.name.endswith("attention.qkv"))
        rows = logits if logits is not None and group.layer is None else group.shape[0]
        products += rows * group.shape[1] * (1 if alone else tokens)
    # Each token looks at all before it and at itself, once with its query and once at the values.
    seen = tokens * before + tokens * (tokens + 1) // 2
    return 2 * products + 2 * 2 * layers * hidden * seen
