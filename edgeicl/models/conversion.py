"""What a model folder may lack: safetensors made from `.bin` weights, tokenizer.json from older files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer

from edgeicl.errors import DataError


def fast_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder that has only vocab.json and merges.txt, as tokenizer.json would hold it."""
    from transformers import AutoTokenizer

    try:
        tokenizer: Tokenizer = AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        ).backend_tokenizer
    except Exception as error:  # many kinds, all meaning that no fast tokenizer is to be had
        raise DataError(f"{folder}: found no usable tokenizer; expected tokenizer.json: {error}") from error
    return whole_texts(tokenizer)


def whole_texts(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer without the padding and length of somebody's training, which a file may hold."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def binaries_to_safetensors(binaries: Sequence[Path], destination: Path) -> None:
    """`.bin` weights as one safetensors file; of tensors that share memory (tied heads) the first is kept."""
    kept: dict[str, torch.Tensor] = {}
    seen: set[tuple[int, tuple[int, ...]]] = set()
    for path in binaries:
        try:
            tensors: Mapping[str, torch.Tensor] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # pickle, zip and torch errors alike
            raise DataError(
                f"{path} can't be read as plain weights (weights_only): {type(error).__name__}: {error}"
            ) from error
        for name, tensor in tensors.items():
            place = (tensor.data_ptr(), tuple(tensor.shape))
            if place not in seen:
                seen.add(place)
                kept[name] = tensor.contiguous()
    save_file(kept, destination, metadata={"format": "pt"})
