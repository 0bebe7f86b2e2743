"""Byte-level BPE tokenizers as OPT has them: made, learned from text, and written for those who read them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
"""Ids 0 to 3, as in OPT; `</s>` begins every text."""


def byte_alphabet() -> list[str]:
    """How byte-level BPE writes each of the 256 bytes."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_level_tokenizer(model: models.BPE) -> Tokenizer:
    """`model` with byte-level text before and after it, and `</s>` in front of every text."""
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", 2)]
    )
    return tokenizer


def learn_tokenizer(documents: Iterable[str], *, vocabulary: int) -> Tokenizer:
    """A tokenizer of at most `vocabulary` tokens, the most useful ones for `documents`."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=byte_alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(documents, trainer)
    learned = json.loads(learner.to_str())["model"]
    merges = [(left, right) for left, right in learned["merges"]]
    return byte_level_tokenizer(models.BPE(vocab=learned["vocab"], merges=merges))


def write_tokenizer(tokenizer: Tokenizer, folder: Path, *, longest_tokens: int) -> None:
    """Writes the files that transformers, the tokenizers library and onnxruntime-genai read."""
    tokenizer.save(str(folder / "tokenizer.json"))
    model: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    _write_json(folder / "vocab.json", model["vocab"])
    merges = "".join(f"{' '.join(pair)}\n" for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}", encoding="utf-8")
    names = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}
    _write_json(folder / "special_tokens_map.json", names)
    settings = {
        "tokenizer_class": "GPT2Tokenizer",
        "add_bos_token": True,
        "add_prefix_space": False,
        "errors": "replace",
        "model_max_length": longest_tokens,
    }
    _write_json(folder / "tokenizer_config.json", settings | names)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
