"""What sets one architecture's computation apart from another's; attention and weights are the decoder's.

Notation: T tokens, H hidden, E width of the embedding, Q width of the packed queries, keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from edgeicl.models.anatomy import Anatomy

Linear = Callable[[str, Tensor], Tensor]
"""Name of a weight group, and rows [T, K] -> rows [T, N], the bias added if there is one."""
Attend = Callable[[Tensor], Tensor]
"""Packed queries, keys and values [T, Q] -> what the heads found [T, heads * head_size]."""
Others = Mapping[str, Tensor]
Rows = Tensor | slice
"""Numbers of rows [M] of a state."""
ALL_ROWS = slice(None)


class Body(Protocol):
    """One architecture, at the tokens with these positions [T]."""

    def __init__(self, anatomy: Anatomy, others: Others, positions: Tensor) -> None: ...

    def embed(self, tokens: Tensor, linear: Linear) -> Tensor:
        """[T, E] token embeddings -> input of the first layer, [T, H]."""

    def layer(self, index: int, hidden: Tensor, linear: Linear, attend: Attend, rows: Rows) -> Tensor:
        """Those `rows` of one layer's output for its input [T, H]; `linear` takes names within the layer."""

    def finish(self, hidden: Tensor, linear: Linear, *, norm: bool) -> Tensor:
        """[M, H] rows of a hidden state -> what the head reads, [M, E]; `norm`: with the last norm."""
