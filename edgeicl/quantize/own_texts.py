"""Texts that a student writes itself, to learn from where there is none: data-free, as in LLM-QAT.

Source: arXiv 2305.17888, section 3.1. There the first words are the likeliest ones; here each word is drawn
with its probability, so that texts are as various as what the student knows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_AT_ONCE = 64


@torch.no_grad()
def own_texts(
    model: PreTrainedModel,
    *,
    leading: Sequence[int],
    texts: int,
    tokens: int,
    seed: int,
    advance: Callable[[int], None] = lambda n: None,
) -> list[list[int]]:
    """Token ids of so many `texts`, each of at most `tokens`, and shorter where the model ends it.

    Each begins with `leading`, or where that is empty with a token drawn from the vocabulary. `advance` is told
    of texts.
    """
    found: list[list[int]] = []
    ends = model.generation_config.eos_token_id
    end_tokens = {ends} if isinstance(ends, int) else set(ends or ())
    generate: Any = model.generate
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        while len(found) < texts:
            count = min(_AT_ONCE, texts - len(found))
            start = torch.tensor([list(leading)] * count, dtype=torch.int64)
            if not leading:
                start = torch.randint(model.config.vocab_size, (count, 1))
            start = start.to(model.device)
            written = generate(
                start,
                attention_mask=torch.ones_like(start),
                max_new_tokens=tokens - start.shape[1],
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                pad_token_id=min(end_tokens, default=0),
            )
            found += [_until_end(row, start.shape[1], end_tokens) for row in written.tolist()]
            advance(count)
    return found


def _until_end(row: list[int], start: int, end_tokens: set[int]) -> list[int]:
    """`row` up to the first of `end_tokens`, with it; those within its first `start` tokens begin it."""
    for place in range(start, len(row)):
        if row[place] in end_tokens:
            return row[: place + 1]
    return row
