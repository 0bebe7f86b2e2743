"""The tokens that stand for a label."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from edgeicl.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def verbalizer_tokens(verbalizers: Mapping[str, str], tokenizer: Tokenizer) -> dict[str, tuple[int, ...]]:
    """Token ids of every label's word(s), in the order of `verbalizers`.

    A label's score is of its tokens' log-probabilities. No word's tokens may be the start of another's: the
    longer word would never be the likelier one, and a text would belong to two labels.

    Raises:
        DataError: lists every word that has no tokens, holds an unknown token, doesn't decode to itself, or
            is the start of another.
    """
    problems: list[str] = []
    tokens: dict[str, tuple[int, ...]] = {}
    for label, word in verbalizers.items():
        ids = tuple(tokenizer.encode(word, add_special_tokens=False).ids)
        tokens[label] = ids
        decoded = tokenizer.decode(list(ids), skip_special_tokens=False)
        if not ids or decoded.strip() != word.strip():
            problems.append(
                f"{word!r} ({label}) becomes the tokens {_pieces(ids, tokenizer)}, which read {decoded!r}"
            )
    # In the order of tokens, all that begins with a word comes right behind it.
    for (shorter, start), (longer, ids) in pairwise(sorted(tokens.items(), key=lambda item: item[1])):
        if start and ids[: len(start)] == start:
            problems.append(
                f"{verbalizers[shorter]!r} ({shorter}) is the start of {verbalizers[longer]!r} ({longer}): "
                f"{_pieces(start, tokenizer)} and {_pieces(ids, tokenizer)}"
            )
    if problems:
        raise DataError(
            "verbalizers don't suit the tokenizer; expected words it can write, none the start of another\n  "
            + "\n  ".join(problems),
            next_step="choose other words in task.verbalizers (most tokenizers want ' Yes', not 'Yes'), or end "
            "each with a mark: label_pattern: ' {label}.'",
        )
    return tokens


def label_columns(tokens: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """The token of each label, in the order of `tokens`: what a head of the labels alone has logits of.

    Raises:
        DataError: a label of several tokens, which is read at several positions and over the whole vocabulary.
    """
    several = {label: ids for label, ids in tokens.items() if len(ids) > 1}
    if several:
        named = ", ".join(f"{label!r} ({len(ids)} tokens)" for label, ids in several.items())
        raise DataError(
            f"emit.head is verbalizers, which reads each label at one position; found {named}, expected labels "
            "of one token",
            next_step="choose words of one token in task.verbalizers, or set emit.head: full",
        )
    return tuple(ids[0] for ids in tokens.values())


def _pieces(ids: tuple[int, ...], tokenizer: Tokenizer) -> str:
    return str([tokenizer.id_to_token(i) for i in ids])
