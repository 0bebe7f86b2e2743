"""The tokenizer of the built-in family: byte-level BPE, as OPT's, whose merges spell the family's words.

Every word of the lexicon is one token after a space; any other text still encodes, byte by byte.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from edgeicl.tasks import nli_lexicon as lexicon
from edgeicl.tasks.nli_family import CUES, STORY_WORD

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
"""Ids 0 to 3, as in OPT; `</s>` begins every text."""

_GRAMMAR = (
    "the",
    "person",
    "animal",
    "and",
    "or",
    "near",
    "that",
    "never",
    "was",
    "by",
    "in",
    "so",
    "Yes",
    "No",
)


def family_tokenizer() -> Tokenizer:
    """The tokenizer, always the same."""
    words = dict.fromkeys(
        (
            *_GRAMMAR,
            STORY_WORD,
            *CUES.values(),
            *lexicon.NOUNS,
            *lexicon.TRANSITIVE,
            *lexicon.INTRANSITIVE,
            *lexicon.ADJECTIVES,
            *lexicon.PLACES,
            *lexicon.TIMES,
        )
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *alphabet))}
    merges: dict[tuple[str, str], None] = {}
    for text in ("the", *(f"Ġ{word}" for word in words)):
        for left, right in _spelling(text, merges):
            merges[left, right] = None
            vocabulary.setdefault(left + right, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A", pair="</s> $A </s> $B", special_tokens=[("</s>", 2)]
    )
    return tokenizer


def _spelling(text: str, merges: dict[tuple[str, str], None]) -> list[tuple[str, str]]:
    """The merges still needed to make `text` one token, after those that exist have been applied."""
    parts = list(text)
    for pair in merges:
        position = 0
        while position < len(parts) - 1:
            if (parts[position], parts[position + 1]) == pair:
                parts[position : position + 2] = ["".join(pair)]
            position += 1
    needed = []
    while len(parts) > 1:
        needed.append((parts[0], parts[1]))
        parts[:2] = ["".join(parts[:2])]
    return needed


def write_tokenizer(folder: Path) -> None:
    """Writes the files that transformers, the tokenizers library and onnxruntime-genai read."""
    tokenizer = family_tokenizer()
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
        "model_max_length": 512,
    }
    _write_json(folder / "tokenizer_config.json", settings | names)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
