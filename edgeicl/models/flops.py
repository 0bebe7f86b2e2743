"""Multiply-adds that a decoder takes for one query, counted on paper.

Every weight matrix takes one multiply-add a weight for each token that passes it; the head is read at the last
token alone, as artifacts do. Attention compares each token of a pass with all positions that the pass sees,
masked or not, once for scores and once for values. Norms, activations and the lookup of embeddings are left
out. A floating-point operation is half a multiply-add.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from edgeicl.models.anatomy import EMBEDDING, opt_config, weight_groups


def query_multiply_adds(config: Mapping[str, Any], *, tokens: int, prefix_tokens: int = 0) -> int:
    """Multiply-adds of one pass over `tokens` whose last logits are read.

    Args:
        config: A config.json; see `anatomy.opt_config`.
        prefix_tokens: Positions before them whose keys and values are there already.
    """
    full = opt_config(config)
    weights = {group.name: prod(group.shape) for group in weight_groups(config)}
    head = weights.pop(EMBEDDING)
    seen = prefix_tokens + tokens
    attention = 2 * int(full["num_hidden_layers"]) * int(full["hidden_size"]) * tokens * seen
    return tokens * sum(weights.values()) + attention + head
