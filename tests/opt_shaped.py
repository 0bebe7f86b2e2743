"""Writes a checkpoint of an OPT model's shape with random weights and OPT's own tokenizer.

    python tests/opt_shaped.py 125m TOKENIZER_FOLDER OUTPUT

What depends on size alone (speed, memory, bytes, parity) can be shown with it; quality can't.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from transformers import OPTConfig, OPTForCausalLM

SHAPES = {
    "125m": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "ffn_dim": 3072},
    "1.3b": {"hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32, "ffn_dim": 8192},
}


def write_opt_shaped(shape: str, tokenizer: Path, output: Path, *, seed: int = 0) -> None:
    """The folder of `facebook/opt-<shape>` as the hub lays it out, with weights that know nothing."""
    torch.manual_seed(seed)
    sizes = SHAPES[shape]
    config = OPTConfig(word_embed_proj_dim=sizes["hidden_size"], vocab_size=50272, **sizes)
    model = OPTForCausalLM(config)
    model.to(torch.float16 if shape == "1.3b" else torch.float32).save_pretrained(output)
    for path in tokenizer.iterdir():
        if path.suffix in {".json", ".txt"}:
            shutil.copyfile(path, output / path.name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shape", choices=list(SHAPES))
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    write_opt_shaped(arguments.shape, arguments.tokenizer, arguments.output)
