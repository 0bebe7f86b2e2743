"""The valid name that somebody probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SIMILARITY_AT_LEAST = 0.6


def nearest(found: str, allowed: Iterable[str]) -> str | None:
    """The one of `allowed` most like `found` (case aside), or None where none is much like it."""
    by_folded = {name.casefold(): name for name in allowed}
    matches = difflib.get_close_matches(found.casefold(), by_folded, n=1, cutoff=_SIMILARITY_AT_LEAST)
    return by_folded[matches[0]] if matches else None


def one_of(found: str, allowed: Iterable[str], *, shown: int = 12) -> str:
    """`did you mean 'kl'? allowed: ce, kl, ...`: what to say when a name isn't one of `allowed`."""
    names = list(allowed)
    meant = nearest(found, names)
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    allowed_text = f"allowed: {', '.join(names[:shown])}{more}" if names else "nothing is allowed here"
    return f"did you mean {meant!r}? {allowed_text}" if meant else allowed_text
