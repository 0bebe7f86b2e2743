"""OPT in plain torch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from edgeicl.models.anatomy import Anatomy
from edgeicl.models.architectures.opt import DECODER, POSITION_OFFSET
from edgeicl.quantize.bodies.body import Attend, Linear, Others


class OptBody:
    """Pre-norm: each block reads the normed stream and adds to the stream itself."""

    def __init__(self, anatomy: Anatomy, others: Others, positions: Tensor) -> None:
        self._others = others
        self._positions = positions + POSITION_OFFSET

    def embed(self, tokens: Tensor, linear: Linear) -> Tensor:
        return tokens + self._others[f"{DECODER}.embed_positions.weight"][self._positions]

    def layer(self, index: int, hidden: Tensor, linear: Linear, attend: Attend) -> Tensor:
        at = f"{DECODER}.layers.{index}"
        projected = linear("attention.qkv", self._norm(f"{at}.self_attn_layer_norm", hidden))
        hidden = hidden + linear("attention.output", attend(projected))
        inner = F.relu(linear("mlp.up", self._norm(f"{at}.final_layer_norm", hidden)))
        return hidden + linear("mlp.down", inner)

    def finish(self, hidden: Tensor, linear: Linear, *, norm: bool) -> Tensor:
        return self._norm(f"{DECODER}.final_layer_norm", hidden) if norm else hidden

    def _norm(self, name: str, hidden: Tensor) -> Tensor:
        weight, bias = self._others[f"{name}.weight"], self._others[f"{name}.bias"]
        return F.layer_norm(hidden, (hidden.shape[-1],), weight, bias, eps=1e-5)
