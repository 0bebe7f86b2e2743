"""CTranslate2 with int8 weights: its own converter, its own greedy generation.

It is not stepped from outside: it decodes the tokens that it finds itself, and tells when it has each. Its time
therefore holds the choice of the largest logit, which is little beside the rest. Tokens are numbers as text,
so that no tokenizer is needed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from edgeicl.bench.protocol import Ids
from edgeicl.bench.rivals.rival import Engine, Logits, Rival, RivalEnvironment

CTRANSLATE2 = RivalEnvironment(
    "ctranslate2",
    ("ctranslate2==4.8.5", "torch==2.13.0", "transformers==5.23.0", "safetensors"),
    "its converter follows one range of transformers' versions",
)
RIVALS = (
    Rival(
        "ctranslate2-int8",
        "CTranslate2, int8 weights and activations",
        CTRANSLATE2,
        __name__,
        logit_tolerance=0.1,
        settings={"compute_type": "int8"},
    ),
)
IMPORTS = ("ctranslate2",)


def build(checkpoint: Path, folder: Path, settings: Mapping[str, Any], context_tokens: int) -> None:
    """Converted and quantized by CTranslate2."""
    from ctranslate2.converters import TransformersConverter

    count = json.loads((checkpoint / "config.json").read_text())["vocab_size"]

    converter = TransformersConverter(str(checkpoint))
    # A checkpoint may have no tokenizer, and ours is asked for numbers alone.
    converter.load_tokenizer = lambda *_, **__: NumberedTokens(count)
    converter.convert(str(folder / "model"), quantization=settings["compute_type"], force=True)


class NumberedTokens:
    """A vocabulary whose words are the tokens' numbers: all that the converter asks of a tokenizer."""

    bos_token = eos_token = unk_token = pad_token = "0"

    def __init__(self, count: int) -> None:
        self._count = count

    def get_vocab(self) -> dict[str, int]:
        return {str(index): index for index in range(self._count)}


def load(folder: Path, settings: Mapping[str, Any], threads: int, context_tokens: int) -> Engine:
    """The converted model, ready to run."""
    return Generator(folder / "model", settings["compute_type"], threads)


class Generator(Engine):
    """CTranslate2's generator on one sequence."""

    def __init__(self, folder: Path, compute_type: str, threads: int) -> None:
        import ctranslate2

        self.threads = threads
        self._generator = ctranslate2.Generator(
            str(folder), device="cpu", compute_type=compute_type, inter_threads=1, intra_threads=threads
        )

    def repetition(self, trace: Ids, prompt_tokens: int) -> tuple[float, list[float]]:
        """The token after the prompt ends the prefill; each further one is a step, as in the other engines."""
        count = 1 + len(trace) - prompt_tokens
        ended: list[float] = []

        def note(_: object) -> bool:
            ended.append(time.perf_counter())
            return False

        started = time.perf_counter()
        self._generator.generate_batch(
            [_words(trace[:prompt_tokens])],
            min_length=count,
            max_length=count,
            sampling_topk=1,
            include_prompt_in_result=False,
            callback=note,
        )
        if len(ended) != count:
            raise RuntimeError(f"CTranslate2 told of {len(ended)} tokens; expected {count}")
        return (ended[0] - started) * 1e3, [(b - a) * 1e3 for a, b in pairwise(ended)]

    def last_logits(self, ids: Ids, prompt_tokens: int) -> Logits:
        """Of all tokens at once: it gives no logits while it generates."""
        found = self._generator.forward_batch([_words(ids)], return_log_probs=False)
        logits: Logits = np.array(found)[0, -1]
        return logits


def _words(ids: Ids) -> list[str]:
    return [str(index) for index in ids]
