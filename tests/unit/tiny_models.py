"""A random student of every architecture, and of the variants that compute something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tests.unit.emit.tiny_opt import BOS, PAD, tiny_tokenizer

POSITIONS = 64
_LLAMA_LIKE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.15,
}
_GPT2: dict[str, Any] = {
    "model_type": "gpt2",
    "n_embd": 64,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": POSITIONS,
    "initializer_range": 0.2,
}
_OPT: dict[str, Any] = {
    "model_type": "opt",
    "hidden_size": 64,
    "ffn_dim": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": POSITIONS,
    "word_embed_proj_dim": 64,
    "init_std": 0.2,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "gpt2": _GPT2,
    "gpt2-untied": {**_GPT2, "n_inner": 96, "tie_word_embeddings": False},
    "llama": {"model_type": "llama", **_LLAMA_LIKE, "rope_theta": 500.0},
    "llama-tied-biases": {
        "model_type": "llama",
        **_LLAMA_LIKE,
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "llama-3.1": {
        "model_type": "llama",
        **_LLAMA_LIKE,
        "head_dim": 32,
        "rope_theta": 100.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    # no block divides rows of 44 (queries, MLP, embedding, head) and of 172
    "llama-odd": {
        "model_type": "llama",
        **_LLAMA_LIKE,
        "hidden_size": 44,
        "head_dim": 16,
        "intermediate_size": 172,
    },
    "llama-odd-tied": {
        "model_type": "llama",
        **_LLAMA_LIKE,
        "hidden_size": 44,
        "head_dim": 16,
        "intermediate_size": 172,
        "tie_word_embeddings": True,
    },
    "llama-linear": {
        "model_type": "llama",
        **_LLAMA_LIKE,
        "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    },
    "opt": _OPT,
    "opt-350m": {**_OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 32},
    "opt-projected": {**_OPT, "word_embed_proj_dim": 32},
    "opt-no-last-norm": {**_OPT, "_remove_final_layer_norm": True},
    "qwen2": {"model_type": "qwen2", **_LLAMA_LIKE, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", **_LLAMA_LIKE, "head_dim": 32, "tie_word_embeddings": False},
}


def make_model(folder: Path, variant: str) -> Path:
    """`write_model` of one of `VARIANTS`."""
    return write_model(folder, VARIANTS[variant])


def write_model(folder: Path, config: dict[str, Any]) -> Path:
    """Writes model and tokenizer; every parameter is drawn, so that none can be left out unnoticed."""
    tokenizer = tiny_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    torch.manual_seed(0)
    special = {"bos_token_id": BOS, "eos_token_id": BOS, "pad_token_id": PAD}
    sizes = {"vocab_size": tokenizer.get_vocab_size(), **special, **config}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    model.save_pretrained(folder)
    return folder
