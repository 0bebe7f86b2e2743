"""When two texts count as the same: by their letters and digits, whatever the case, spaces and signs."""

from __future__ import annotations

import unicodedata


def text_key(text: str) -> str:
    """The same for texts that differ only in case, white space, punctuation or how accents are stored."""
    return "".join(
        character for character in unicodedata.normalize("NFKC", text).casefold() if character.isalnum()
    )
