"""Operations counted by hand."""

from __future__ import annotations

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
