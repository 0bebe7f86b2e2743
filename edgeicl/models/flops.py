"""Floating-point operations of one prompt, as graphs compute it: a multiply-add is two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeicl.models.anatomy import EMBEDDING, HEAD, PROJECT_IN
from edgeicl.models.architectures.table import anatomy_of


def prompt_flops(
    config: Mapping[str, Any],
    *,
    tokens: int,
    before: int = 0,
    logits: int | None = None,
    last_layer_alone: bool = True,
) -> int:
    """FLOPs until the logits after a prompt of `tokens`, with keys and values of `before` tokens in the cache.

    Matrix products and attention; norms and activations are left out. The head reads the last token alone, for
    `logits` tokens (the whole vocabulary unless given).

    Args:
        last_layer_alone: Whether behind its attention the last layer goes on with the last token alone, as in
            an artifact's graph. Other engines compute all of it.
    """
    anatomy = anatomy_of(config)
    products = 0
    for group in anatomy.groups:
        if group.name == EMBEDDING and not anatomy.tied:
            continue  # looked up, not multiplied
        last_layer = group.layer == anatomy.layers - 1 and not group.name.endswith("attention.qkv")
        last_layer = last_layer and last_layer_alone
        alone = last_layer or (group.layer is None and group.name != PROJECT_IN)
        is_head = group.name in (EMBEDDING, HEAD)
        rows = logits if is_head and logits is not None else group.shape[0]
        products += rows * group.shape[1] * (1 if alone else tokens)
    # Each token looks at all before it and at itself, once with its query and once at the values.
    seen = tokens * before + tokens * (tokens + 1) // 2
    return 2 * products + 2 * 2 * anatomy.layers * anatomy.heads * anatomy.head_size * seen
