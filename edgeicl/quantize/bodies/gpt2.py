"""GPT-2 in plain torch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from edgeicl.models.anatomy import Anatomy
from edgeicl.models.architectures.gpt2 import DECODER
from edgeicl.quantize.bodies.body import Attend, Linear, Others, Rows


class Gpt2Body:
    """Pre-norm, as OPT, with GELU in its tanh form."""

    def __init__(self, anatomy: Anatomy, others: Others, positions: Tensor) -> None:
        self._others = others
        self._positions = positions
        self._epsilon = float(anatomy.config["layer_norm_epsilon"])

    def embed(self, tokens: Tensor, linear: Linear) -> Tensor:
        return tokens + self._others[f"{DECODER}.wpe.weight"][self._positions]

    def layer(self, index: int, hidden: Tensor, linear: Linear, attend: Attend, rows: Rows) -> Tensor:
        at = f"{DECODER}.h.{index}"
        projected = linear("attention.qkv", self._norm(f"{at}.ln_1", hidden))
        hidden = hidden[rows] + linear("attention.output", attend(projected)[rows])
        inner = F.gelu(linear("mlp.up", self._norm(f"{at}.ln_2", hidden)), approximate="tanh")
        return hidden + linear("mlp.down", inner)

    def finish(self, hidden: Tensor, linear: Linear, *, norm: bool) -> Tensor:
        return self._norm(f"{DECODER}.ln_f", hidden) if norm else hidden

    def _norm(self, name: str, hidden: Tensor) -> Tensor:
        weight, bias = self._others[f"{name}.weight"], self._others[f"{name}.bias"]
        return F.layer_norm(hidden, (hidden.shape[-1],), weight, bias, eps=self._epsilon)
