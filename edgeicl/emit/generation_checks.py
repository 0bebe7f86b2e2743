"""Does the artifact generate, and does onnxruntime-genai make the same tokens of it, from the same files?"""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Sequence, Set
from itertools import takewhile
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from edgeicl.emit.genai_process import GenaiRun, run_genai
from edgeicl.errors import ParityError
from edgeicl.models.growing_decoder import GrowingDecoder
from edgeicl.models.onnx_decoder import OnnxDecoder
from edgeicl.specs.manifest import GENAI_FILE, Deviation

GENAI_READS_TEXT = "onnxruntime-genai's tokenizer gives the ids of tokenizer.json"
"""`asked` of the deviation of an artifact where it doesn't."""


def check_greedy(
    decoder: OnnxDecoder | GrowingDecoder, prompts: Sequence[Sequence[int]], tokens: int
) -> list[list[int]]:
    """`tokens` greedy tokens after each prompt, made twice.

    Raises:
        ParityError: logits that aren't finite, or two runs that differ.
    """
    generated = []
    for prompt in prompts:
        logits = decoder.prefill(np.asarray([prompt], dtype=np.int64))
        if not np.isfinite(logits).all():
            raise ParityError(f"after the prompt {list(prompt)} the artifact's logits aren't finite")
        first, second = decoder.generate(prompt, tokens), decoder.generate(prompt, tokens)
        if first != second:
            raise ParityError(f"the same prompt gave {first}, then {second}; expected the same tokens")
        generated.append(first)
    return generated


def check_repeatable(decoder: OnnxDecoder | GrowingDecoder, prompts: Sequence[Sequence[int]]) -> None:
    """ParityError unless each prompt, read twice, gives the same finite logits."""
    for prompt in prompts:
        ids = np.asarray([prompt], dtype=np.int64)
        first, second = decoder.prefill(ids), decoder.prefill(ids)
        if not np.isfinite(first).all():
            raise ParityError(f"after the prompt {list(prompt)} the artifact's logits aren't finite")
        if not np.array_equal(first, second):
            raise ParityError(
                f"the prompt {list(prompt)} gave two logits {np.abs(first - second).max():.3g} apart; expected "
                "the same"
            )


def genai_version() -> str | None:
    """Version of onnxruntime-genai, or None where it isn't installed."""
    try:
        return importlib.metadata.version("onnxruntime-genai")
    except importlib.metadata.PackageNotFoundError:
        return None


def check_genai(
    folder: Path,
    prompts: Sequence[Sequence[int]],
    expected: Sequence[Sequence[int]],
    texts: Sequence[str],
    before: Sequence[int] = (),
) -> list[Deviation]:
    """Loads `folder` in onnxruntime-genai and compares its tokens with `expected`, and its tokenizer's ids.

    It reads the tokens `before` once, and is rewound to their end before each prompt.

    genai stops at a token that ends a text: `expected` up to there must be what it makes. Of a prompt whose
    first token is that one it makes nothing.

    Returns:
        What could not be checked, or holds for everything but genai's tokenizer.

    Raises:
        ParityError: genai can't run the folder, or generates other tokens.
    """
    if genai_version() is None:
        return [_deviation("onnxruntime-genai generates the same tokens", "not checked", "it isn't installed")]
    run = run_genai(folder, prompts, [len(tokens) for tokens in expected], texts, before)
    if run.generated is None:
        raise ParityError(f"onnxruntime-genai can't run {folder}: {run.failure}")
    end = end_tokens(folder)
    for prompt, tokens, found in zip(prompts, expected, run.generated, strict=True):
        if before_end(end, found) != before_end(end, tokens):
            raise ParityError(
                f"after {list(prompt)} onnxruntime-genai generates {found}, onnxruntime {list(tokens)}"
            )
    deviations = _tokenizer_deviations(run, folder, texts)
    if not any(before_end(end, tokens) for tokens in expected):
        why = "after every prompt the most likely token ends the text"
        deviations.append(_deviation("onnxruntime-genai generates the same tokens", "nothing to compare", why))
    return deviations


def check_transformers_tokenizer(folder: Path, texts: Sequence[str]) -> None:
    """ParityError unless transformers makes the same ids of `texts` as the tokenizers library does."""
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in texts:
        found, expected = list(loaded(text)["input_ids"]), reference.encode(text).ids
        if found != expected:
            raise ParityError(f"transformers reads {text!r} as {found}, tokenizer.json means {expected}")


def end_tokens(folder: Path) -> frozenset[int]:
    """The tokens that end a text, as the artifact's files name them."""
    named = json.loads((folder / GENAI_FILE).read_text())["model"]["eos_token_id"]
    return frozenset(named if isinstance(named, list) else [named])


def before_end(end: Set[int], tokens: Sequence[int]) -> list[int]:
    """The tokens before the first that ends a text."""
    return list(takewhile(lambda token: token not in end, tokens))


def _tokenizer_deviations(run: GenaiRun, folder: Path, texts: Sequence[str]) -> list[Deviation]:
    reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    if run.tokenizer_ids is None:
        return [_deviation(GENAI_READS_TEXT, "its tokenizer can't read tokenizer.json", run.failure)]
    wrong = [
        text
        for text, found in zip(texts, run.tokenizer_ids, strict=True)
        if found != reference.encode(text).ids
    ]
    if not wrong:
        return []
    got = f"{len(wrong)} of {len(texts)} texts get other ids, such as {wrong[0]!r}"
    return [
        _deviation(GENAI_READS_TEXT, got, "genai's tokenizer reads these files differently; pass it token ids")
    ]


def _deviation(asked: str, got: str, why: str) -> Deviation:
    return Deviation(what="onnxruntime-genai", where="artifact", asked=asked, got=got, why=why)
