"""OPT as ExecuTorch runs it best: one key/value buffer a layer, and ExecuTorch's own attention over it.

Imported only in ExecuTorch's environment. The custom operators come from ExecuTorch's LLM extension, which is
what its own Llama export uses; an export of transformers' model attends over the whole buffer instead.

Notation: T tokens of the step, C positions of the buffer, H heads, D width of a head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_LARGEST_BYTE = 127


class ByteTable(nn.Module):
    """A lookup table in int8 with a scale a row, read by ExecuTorch's own kernel."""

    def __init__(self, table: Tensor) -> None:
        """`table` [V, D], fp32."""
        super().__init__()
        scales = table.abs().amax(1, keepdim=True).clamp_min(1e-12) / _LARGEST_BYTE
        self.register_buffer("scales", scales)
        self.register_buffer("codes", (table / scales).round().to(torch.int8))

    def forward(self, ids: Tensor) -> Tensor:
        """[1, T] -> [1, T, D]."""
        rows: Tensor = torch.ops.quantized_decomposed.embedding_byte(
            self.codes, self.scales, None, -_LARGEST_BYTE - 1, _LARGEST_BYTE, ids
        )
        return rows


class StaticCacheAttention(nn.Module):
    """Self-attention of one layer that writes keys and values at `start` and reads all before."""

    def __init__(self, attention: Any, positions: int) -> None:
        """`attention`: transformers' OPTAttention, whose linear layers are taken over."""
        super().__init__()
        self.q_proj, self.k_proj = attention.q_proj, attention.k_proj
        self.v_proj, self.out_proj = attention.v_proj, attention.out_proj
        self.heads, self.head_size = attention.num_heads, attention.head_dim
        shape = (1, positions, self.heads, self.head_size)
        self.register_buffer("keys", torch.zeros(shape))
        self.register_buffer("values", torch.zeros(shape))

    def forward(self, hidden: Tensor, start: int) -> Tensor:
        """[1, T, H D] in and out."""
        shape = (1, hidden.shape[1], self.heads, self.head_size)
        query = self.q_proj(hidden).view(shape)
        torch.ops.llama.update_cache(self.k_proj(hidden).view(shape), self.keys, start)
        torch.ops.llama.update_cache(self.v_proj(hidden).view(shape), self.values, start)
        read = torch.ops.llama.custom_sdpa(query, self.keys, self.values, start, None, 0.0, True)
        written: Tensor = self.out_proj(read.reshape(1, hidden.shape[1], self.heads * self.head_size))
        return written


class StaticCacheLayer(nn.Module):
    """One decoder layer, its norms before (125M and up) or after (350M) attention and feed-forward."""

    def __init__(self, layer: Any, positions: int) -> None:
        super().__init__()
        self.attention = StaticCacheAttention(layer.self_attn, positions)
        self.attention_norm, self.final_norm = layer.self_attn_layer_norm, layer.final_layer_norm
        self.fc1, self.fc2, self.activation = layer.fc1, layer.fc2, layer.activation_fn
        self.norm_first = layer.do_layer_norm_before

    def forward(self, hidden: Tensor, start: int) -> Tensor:
        if self.norm_first:
            hidden = hidden + self.attention(self.attention_norm(hidden), start)
            hidden = hidden + self.fc2(self.activation(self.fc1(self.final_norm(hidden))))
        else:
            hidden = self.attention_norm(hidden + self.attention(hidden, start))
            hidden = self.final_norm(hidden + self.fc2(self.activation(self.fc1(hidden))))
        return hidden


class StaticCacheOpt(nn.Module):
    """OPT with a buffer of C positions; logits of the last token alone."""

    def __init__(self, model: Any, positions: int) -> None:
        """`model`: transformers' OPTForCausalLM, whose weights are taken over."""
        super().__init__()
        decoder = model.model.decoder
        self.positions = positions
        self.embed_tokens = ByteTable(decoder.embed_tokens.weight.detach())
        # The first rows are padding's.
        table = decoder.embed_positions.weight.detach()[decoder.embed_positions.offset :]
        self.embed_positions = nn.Embedding(positions, table.shape[1], _weight=table[:positions].clone())
        self.project_in, self.project_out = decoder.project_in, decoder.project_out
        self.layers = nn.ModuleList(StaticCacheLayer(layer, positions) for layer in decoder.layers)
        self.final_norm = decoder.final_layer_norm
        self.head = nn.Linear(model.lm_head.in_features, model.lm_head.out_features, bias=False)
        # A copy: quantized apart from the lookup, for another kernel.
        self.head.weight = nn.Parameter(model.lm_head.weight.detach().clone())

    def forward(self, input_ids: Tensor, position: Tensor) -> Tensor:
        """Tokens [1, T] that stand at `position` [1] and after it; logits [1, 1, V]."""
        tokens = input_ids.shape[1]
        start = position.item()
        torch._check(start >= 0)  # type: ignore[no-untyped-call]
        torch._check(start + tokens <= self.positions)  # type: ignore[no-untyped-call]
        hidden = self.embed_tokens(input_ids)
        if self.project_in is not None:
            hidden = self.project_in(hidden)
        hidden = hidden + self.embed_positions(torch.arange(tokens) + position)
        for layer in self.layers:
            hidden = layer(hidden, start)
        hidden = hidden[:, -1:]
        if self.final_norm is not None:
            hidden = self.final_norm(hidden)
        if self.project_out is not None:
            hidden = self.project_out(hidden)
        logits: Tensor = self.head(hidden)
        return logits
