"""A student of 2 layers and width 32 whose layers matter unequally, and its calibration sequences."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import OPTConfig, OPTForCausalLM

WORDS = ["</s>", "<pad>", "<unk>", "Yes", "No", "answer:", *(f"w{i}" for i in range(90))]
SEQUENCES = [[0, 7, 8, 9, 10, 11, 5], [0, 20, 30, 5], [0, 40, 41, 42, 43, 44, 45, 46, 47, 5], [6]]


def make_student(folder: Path, *, ffn_dim: int = 64) -> Path:
    """Writes a model folder; every parameter is drawn, so that none can be left out unnoticed."""
    torch.manual_seed(0)
    model = OPTForCausalLM(
        OPTConfig(
            vocab_size=len(WORDS),
            hidden_size=32,
            num_hidden_layers=2,
            ffn_dim=ffn_dim,
            num_attention_heads=4,
            max_position_embeddings=40,
            word_embed_proj_dim=32,
            init_std=0.2,
            pad_token_id=1,
            bos_token_id=0,
            eos_token_id=0,
        )
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            if ".layers.1." in name and parameter.ndim == 2:
                parameter.mul_(0.3)  # the second layer says little
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
