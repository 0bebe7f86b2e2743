"""OPT in plain torch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from edgeicl.models.anatomy import PROJECT_IN, PROJECT_OUT, Anatomy
from edgeicl.models.architectures.opt import DECODER, POSITION_OFFSET, has_last_norm
from edgeicl.quantize.bodies.body import Attend, Linear, Others, Rows


class OptBody:
    """Pre-norm: blocks read the normed stream and add to the stream itself. Post-norm: the sums are normed."""

    def __init__(self, anatomy: Anatomy, others: Others, positions: Tensor) -> None:
        self._others = others
        self._positions = positions + POSITION_OFFSET
        self._projected = anatomy.projected
        self._norm_first = bool(anatomy.config["do_layer_norm_before"])
        self._last_norm = has_last_norm(anatomy.config)

    def embed(self, tokens: Tensor, linear: Linear) -> Tensor:
        wide = linear(PROJECT_IN, tokens) if self._projected else tokens
        return wide + self._others[f"{DECODER}.embed_positions.weight"][self._positions]

    def layer(self, index: int, hidden: Tensor, linear: Linear, attend: Attend, rows: Rows) -> Tensor:
        at = f"{DECODER}.layers.{index}"
        attention_norm, mlp_norm = f"{at}.self_attn_layer_norm", f"{at}.final_layer_norm"
        source = self._norm(attention_norm, hidden) if self._norm_first else hidden
        hidden = hidden[rows] + linear("attention.output", attend(linear("attention.qkv", source))[rows])
        if not self._norm_first:
            hidden = self._norm(attention_norm, hidden)
        source = self._norm(mlp_norm, hidden) if self._norm_first else hidden
        hidden = hidden + linear("mlp.down", F.relu(linear("mlp.up", source)))
        return hidden if self._norm_first else self._norm(mlp_norm, hidden)

    def finish(self, hidden: Tensor, linear: Linear, *, norm: bool) -> Tensor:
        if norm and self._last_norm:
            hidden = self._norm(f"{DECODER}.final_layer_norm", hidden)
        return linear(PROJECT_OUT, hidden) if self._projected else hidden

    def _norm(self, name: str, hidden: Tensor) -> Tensor:
        weight, bias = self._others[f"{name}.weight"], self._others[f"{name}.bias"]
        return F.layer_norm(hidden, (hidden.shape[-1],), weight, bias, eps=1e-5)
