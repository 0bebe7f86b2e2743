"""Text from an artifact: greedy, up to an end token."""

from __future__ import annotations

from edgeicl.bench.artifact import Artifact
from edgeicl.errors import DataError


def generate(artifact: Artifact, text: str, *, tokens: int, threads: int) -> str:
    """The greedy continuation of `text` by at most `tokens` tokens.

    Raises:
        DataError: text and continuation don't fit the model's context.
    """
    ids = list(artifact.tokenizer.encode(text).ids)
    if not ids or len(ids) + tokens > artifact.context_tokens:
        raise DataError(
            f"the text is {len(ids)} tokens long and {tokens} more were asked for; "
            f"expected at least 1, and {artifact.context_tokens} together at most",
            next_step="shorten the text, or ask for fewer tokens",
        )
    decoder = artifact.decoder(threads=threads, context_tokens=len(ids) + tokens)
    return str(artifact.tokenizer.decode(until_end(decoder.generate(ids, tokens), artifact.end_tokens)))


def until_end(ids: list[int], end_tokens: frozenset[int]) -> list[int]:
    """The tokens before the first end token."""
    for index, token in enumerate(ids):
        if token in end_tokens:
            return ids[:index]
    return ids
