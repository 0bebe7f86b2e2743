from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache, OPTConfig, OPTForCausalLM

from edgeicl.models.flops import query_multiply_adds

CONFIG = OPTConfig(
    vocab_size=97,
    hidden_size=16,
    word_embed_proj_dim=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    ffn_dim=40,
    max_position_embeddings=64,
)


def counted(tokens: int, prefix_tokens: int) -> int:
    """Floating-point operations of the model itself, with the head at the last token."""
    model = OPTForCausalLM._from_config(CONFIG, attn_implementation="eager").eval()  # torch counts no fused one
    cache = DynamicCache()
    with torch.no_grad():
        if prefix_tokens:
            ids = torch.zeros(1, prefix_tokens, dtype=torch.int64)
            cache = model.model(input_ids=ids, use_cache=True).past_key_values
        with FlopCounterMode(display=False) as counter:
            ids = torch.zeros(1, tokens, dtype=torch.int64)
            model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return counter.get_total_flops()


@pytest.mark.parametrize(("tokens", "prefix"), [(1, 0), (7, 0), (7, 5), (31, 20)])
def test_twice_the_multiply_adds_are_what_torch_counts(tokens: int, prefix: int) -> None:
    found = query_multiply_adds(CONFIG.to_dict(), tokens=tokens, prefix_tokens=prefix)
    assert 2 * found == counted(tokens, prefix)


def test_on_paper() -> None:
    """One layer: 4 x 16 x 16 and 2 x 16 x 40 weights, a head of 97 x 16, attention 2 x 16 x 2 x (3 + 2)."""
    config = CONFIG.to_dict() | {"num_hidden_layers": 1}
    assert query_multiply_adds(config, tokens=2, prefix_tokens=3) == 2 * (1024 + 1280) + 1552 + 320
