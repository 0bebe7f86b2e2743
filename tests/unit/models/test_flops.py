"""Operations counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import OPTConfig, OPTForCausalLM

from edgeicl.models.flops import prompt_flops

TINY = {
    "model_type": "opt", "hidden_size": 8, "ffn_dim": 16, "num_hidden_layers": 2, "num_attention_heads": 1,
    "vocab_size": 10, "max_position_embeddings": 64, "word_embed_proj_dim": 8,
}  # fmt: skip


def test_a_prompt_on_paper() -> None:
    """3 tokens: in layer 0 all of 8·24 + 8·8 + 8·16 + 16·8 weights each, in layer 1 only the first 192 each;
    the rest of layer 1 and the head (80) once. Attention: 1 + 2 + 3 pairs, twice 8 numbers, 2 layers."""
    products = 3 * (192 + 64 + 128 + 128) + 3 * 192 + (64 + 128 + 128) + 80
    assert prompt_flops(TINY, tokens=3) == 2 * products + 2 * 2 * 8 * 2 * 6


def test_fewer_heads_of_keys_and_a_head_of_its_own() -> None:
    """One layer of width 32, 2 heads of 16 for queries and 1 for keys and values, inner width 48, 10 words."""
    config = {
        "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 10,
    }  # fmt: skip
    products = 3 * (32 + 16 + 16) * 32 + 32 * 32 + 2 * 48 * 32 + 32 * 48 + 10 * 32
    assert prompt_flops(config, tokens=3) == 2 * products + 2 * 2 * 32 * 6


def test_projections_of_the_embedding() -> None:
    """Every token goes in, 4 by 8 weights; the last one comes out, and the head has 40 in place of 80."""
    narrow = TINY | {"word_embed_proj_dim": 4}
    assert prompt_flops(narrow, tokens=3) - prompt_flops(TINY, tokens=3) == 2 * (3 * 32 + 32 + 40 - 80)


def test_what_stands_before_costs_attention_only() -> None:
    alone, behind = prompt_flops(TINY, tokens=3), prompt_flops(TINY, tokens=3, before=5)
    assert behind - alone == 2 * 2 * 8 * 2 * 15


def test_a_query_behind_a_prefix_and_the_prefix_are_nearly_the_whole_prompt() -> None:
    """Read in two parts, there are two last tokens: once 64 + 256 + 80 products more."""
    parts = prompt_flops(TINY, tokens=5) + prompt_flops(TINY, tokens=3, before=5)
    assert parts - prompt_flops(TINY, tokens=8) == 2 * (64 + 256 + 80)


def test_opt_125m() -> None:
    """85 million weights in the layers, 38.6 million in the head: 100 tokens take 16 billion operations."""
    config = {"model_type": "opt"}
    assert 15.5e9 < prompt_flops(config, tokens=100) < 17.5e9


def counted(config: OPTConfig, *, before: int) -> int:
    """What torch counts of one token behind others; it counts no fused attention."""
    model = OPTForCausalLM._from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        cache = model.model(input_ids=torch.zeros(1, before, dtype=torch.int64), use_cache=True).past_key_values
        with FlopCounterMode(display=False) as counter:
            model(input_ids=torch.zeros(1, 1, dtype=torch.int64), past_key_values=cache)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("before", [1, 6, 30])
def test_token_by_token_it_is_what_torch_counts(before: int) -> None:
    config = OPTConfig(**TINY)
    assert prompt_flops(TINY, tokens=1, before=before) == counted(config, before=before)
    one_by_one = sum(counted(config, before=before + token) for token in range(4))
    # Read at once, three tokens of the four leave out the rest of the last layer, and the head.
    assert prompt_flops(TINY, tokens=4, before=before) == one_by_one - 3 * 2 * (64 + 128 + 128 + 80)
