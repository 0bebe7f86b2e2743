"""Text from an artifact: greedy, up to an end token."""

from __future__ import annotations

from edgeicl.bench.artifact import Artifact
from edgeicl.errors import DataError
from edgeicl.models.prefix_file import prefix_tokens


def generate(artifact: Artifact, text: str, *, tokens: int, threads: int) -> str:
    """The greedy continuation of `text` by at most `tokens` tokens, behind the first set of a prefix.

    Raises:
        DataError: text and continuation don't fit the model's context, or an artifact that can't generate.
    """
    if not artifact.generates:
        raise DataError(
            f"{artifact.path} has logits of its labels alone (emit.head: verbalizers), so it can't continue a "
            "text",
            next_step="leave out --generate to have a text classified, or compile it with emit.head: full",
        )
    prefix = artifact.prefixes[0] if artifact.prefixes else None
    before = prefix_tokens(prefix)
    ids = list(artifact.tokenizer.encode(text, add_special_tokens=prefix is None).ids)
    room = artifact.context_tokens - before
    if not ids or len(ids) + tokens > room:
        raise DataError(
            f"the text is {len(ids)} tokens long and {tokens} more were asked for; "
            f"expected at least 1, and {room} together at most",
            next_step="shorten the text, or ask for fewer tokens",
        )
    decoder = artifact.decoder(threads=threads, context_tokens=before + len(ids) + tokens)
    if prefix is not None:
        decoder.load_prefix(prefix)
    return str(artifact.tokenizer.decode(until_end(decoder.generate(ids, tokens), artifact.end_tokens)))


def until_end(ids: list[int], end_tokens: frozenset[int]) -> list[int]:
    """The tokens before the first end token."""
    for index, token in enumerate(ids):
        if token in end_tokens:
            return ids[:index]
    return ids
