"""The Llama family in plain torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgeicl.models.anatomy import Anatomy
from edgeicl.models.rotary import inverse_frequencies
from edgeicl.quantize.bodies.body import Attend, Linear, Others, Rows


class LlamaBody:
    """Pre-norm with RMSNorm; queries and keys are turned by their positions."""

    def __init__(self, anatomy: Anatomy, others: Others, positions: Tensor) -> None:
        self._others = others
        self._epsilon = float(anatomy.config["rms_norm_eps"])
        self._head_size, self._head_norms = anatomy.head_size, anatomy.head_norms
        self._widths = [anatomy.heads * anatomy.head_size, anatomy.kv_width, anatomy.kv_width]
        angles = positions[:, None].float() * inverse_frequencies(anatomy.config, anatomy.head_size)
        self._cos, self._sin = angles.cos()[:, None], angles.sin()[:, None]  # [T, 1, head size / 2]

    def embed(self, tokens: Tensor, linear: Linear) -> Tensor:
        return tokens

    def layer(self, index: int, hidden: Tensor, linear: Linear, attend: Attend, rows: Rows) -> Tensor:
        at = f"model.layers.{index}"
        projected = linear("attention.qkv", self._norm(f"{at}.input_layernorm", hidden))
        query, key, value = torch.split(projected, self._widths, dim=-1)
        query = self._turned(query, f"{at}.self_attn.q_norm")
        key = self._turned(key, f"{at}.self_attn.k_norm")
        found = attend(torch.cat([query, key, value], dim=-1))
        hidden = hidden[rows] + linear("attention.output", found[rows])
        gate, up = linear("mlp.gate_up", self._norm(f"{at}.post_attention_layernorm", hidden)).chunk(2, dim=-1)
        return hidden + linear("mlp.down", F.silu(gate) * up)

    def finish(self, hidden: Tensor, linear: Linear, *, norm: bool) -> Tensor:
        return self._norm("model.norm", hidden) if norm else hidden

    def _norm(self, name: str, rows: Tensor) -> Tensor:
        scaled = rows * torch.rsqrt(rows.square().mean(-1, keepdim=True) + self._epsilon)
        return scaled * self._others[f"{name}.weight"]

    def _turned(self, rows: Tensor, norm: str) -> Tensor:
        """Rows [T, heads * head size], each head normed if it has a norm, and turned by its position."""
        heads = rows.view(len(rows), -1, self._head_size)
        if self._head_norms:
            heads = self._norm(norm, heads)
        first, second = heads.chunk(2, dim=-1)
        turned = (first * self._cos - second * self._sin, second * self._cos + first * self._sin)
        return torch.cat(turned, dim=-1).view(len(rows), -1)
