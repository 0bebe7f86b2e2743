"""The tokenizer of the built-in family: byte-level BPE, as OPT's, whose merges spell the family's words.

Every word of the lexicon is one token after a space; any other text still encodes, byte by byte.
"""

from __future__ import annotations

from tokenizers import Tokenizer, models

from edgeicl.tasks import nli_lexicon as lexicon
from edgeicl.tasks.byte_level_tokenizer import SPECIAL_TOKENS, byte_alphabet, byte_level_tokenizer
from edgeicl.tasks.nli_family import CUES, STORY_WORD

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
    vocabulary = {token: index for index, token in enumerate((*SPECIAL_TOKENS, *byte_alphabet()))}
    merges: dict[tuple[str, str], None] = {}
    for text in ("the", *(f"Ġ{word}" for word in words)):
        for left, right in _spelling(text, merges):
            merges[left, right] = None
            vocabulary.setdefault(left + right, len(vocabulary))
    return byte_level_tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))


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
