"""The tokens that stand for a label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from edgeicl.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def verbalizer_tokens(verbalizers: Mapping[str, str], tokenizer: Tokenizer) -> dict[str, tuple[int, ...]]:
    """Token ids of every label's word(s), in the order of `verbalizers`.

    A label's score is the sum of its tokens' log-probabilities. The first tokens must differ, so that
    greedy generation settles on a label with its first token.

    Raises:
        DataError: lists every word that has no tokens, holds an unknown token, doesn't decode to itself, or
            starts with the same token as another (which covers words that are a prefix of each other).
    """
    problems: list[str] = []
    tokens: dict[str, tuple[int, ...]] = {}
    first: dict[int, str] = {}
    for label, word in verbalizers.items():
        ids = tuple(tokenizer.encode(word, add_special_tokens=False).ids)
        tokens[label] = ids
        decoded = tokenizer.decode(list(ids), skip_special_tokens=False)
        if not ids or decoded.strip() != word.strip():
            problems.append(
                f"{word!r} ({label}) becomes the tokens {_pieces(ids, tokenizer)}, which read {decoded!r}"
            )
            continue
        other = first.setdefault(ids[0], label)
        if other != label:
            problems.append(
                f"{word!r} ({label}) and {verbalizers[other]!r} ({other}) both start with token {ids[0]}: "
                f"{_pieces(ids, tokenizer)} and {_pieces(tokens[other], tokenizer)}"
            )
    if problems:
        raise DataError(
            "verbalizers don't suit the tokenizer; expected words it can write, with different first tokens\n  "
            + "\n  ".join(problems),
            next_step="choose other words in task.verbalizers (most tokenizers want ' Yes', not 'Yes')",
        )
    return tokens


def _pieces(ids: tuple[int, ...], tokenizer: Tokenizer) -> str:
    return str([tokenizer.id_to_token(i) for i in ids])
