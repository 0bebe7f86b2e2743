"""Operations counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import OPTConfig, OPTForCausalLM

from edgeicl.models.flops import prompt_flops

TINY = {
    "model_type": "opt", "hidden_size": 4, "ffn_dim": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
    "vocab_size": 10, "max_position_embeddings": 64, "word_embed_proj_dim": 4,
}  # fmt: skip


def test_a_prompt_on_paper() -> None:
    """3 tokens: in layer 0 all of 4·12 + 4·4 + 4·8 + 8·4 weights each, in layer 1 only the first 48 each; the
    rest of layer 1 and the head (40) once. Attention: 1 + 2 + 3 pairs, twice 4 numbers, 2 layers."""
    products = 3 * (48 + 16 + 32 + 32) + 3 * 48 + (16 + 32 + 32) + 40
    assert prompt_flops(TINY, tokens=3) == 2 * products + 2 * 2 * 4 * 2 * 6


def test_what_stands_before_costs_attention_only() -> None:
    alone, behind = prompt_flops(TINY, tokens=3), prompt_flops(TINY, tokens=3, before=5)
    assert behind - alone == 2 * 2 * 4 * 2 * 15


def test_a_query_behind_a_prefix_and_the_prefix_are_nearly_the_whole_prompt() -> None:
    """Read in two parts, there are two last tokens: once 16 + 64 + 40 products more."""
    parts = prompt_flops(TINY, tokens=5) + prompt_flops(TINY, tokens=3, before=5)
    assert parts - prompt_flops(TINY, tokens=8) == 2 * (16 + 64 + 40)


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
    assert prompt_flops(TINY, tokens=4, before=before) == one_by_one - 3 * 2 * (16 + 32 + 32 + 40)
