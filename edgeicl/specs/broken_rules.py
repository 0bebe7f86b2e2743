"""What keys mean together can be wrong in several places at once: an error for a validator that knows all."""

from __future__ import annotations

from collections.abc import Iterable


class BrokenRulesError(ValueError):
    """Raised in a validator of a section: the key each rule is about, below that section, and what it says.

    A text is "what was found; what was expected", as in every other error of a spec.
    """

    def __init__(self, broken: Iterable[tuple[str, str]]) -> None:
        self.broken = tuple(broken)
        super().__init__("\n".join(f"{key}: {text}" for key, text in self.broken))
