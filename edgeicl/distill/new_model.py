"""An untrained model of OPT's architecture, started so that it learns sooner."""

from __future__ import annotations

import math

import torch
from transformers import OPTConfig, OPTForCausalLM

from edgeicl.specs.pretraining import Shape

_LAYERS_OF_LIKE_TO_LIKE = 3
# Wavelengths from 2 pi to 2 pi times this. Far below the usual 10,000, which near and far tokens look alike to.
_SLOWEST = 100


def new_model(shape: Shape, vocabulary: int) -> OPTForCausalLM:
    """An untrained model, started so that it learns sooner.

    Learned positions start as sinusoids. In the first layers, half of the heads have equal query and key
    weights, so that a token attends to its own like (mimetic initialization, arXiv 2305.09828).
    """
    model = OPTForCausalLM(
        OPTConfig(
            vocab_size=vocabulary,
            hidden_size=shape.width,
            word_embed_proj_dim=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            ffn_dim=shape.ffn_width,
            max_position_embeddings=shape.positions,
            init_std=shape.initial_std,
            dropout=0.0,
            attention_dropout=0.0,
        )
    )
    positions = model.model.decoder.embed_positions.weight
    angles = torch.arange(positions.shape[0])[:, None] / _SLOWEST ** torch.linspace(0, 1, shape.width // 2)
    with torch.no_grad():
        positions.copy_(torch.cat([angles.sin(), angles.cos()], dim=1) * shape.initial_std * math.sqrt(2))
        for layer in model.model.decoder.layers[:_LAYERS_OF_LIKE_TO_LIKE]:
            alike = slice(0, shape.width // 2)
            layer.self_attn.k_proj.weight[alike] = layer.self_attn.q_proj.weight[alike]
    return model
