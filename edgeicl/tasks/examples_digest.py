"""What stands for data among a stage's inputs: texts, labels and their order, wherever they came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgeicl.store import digest_of
from edgeicl.tasks.example import Example


def examples_digest(parts: Iterable[tuple[str, Sequence[Example]]]) -> str:
    """Digest of the examples of each named part."""
    return digest_of({name: [[dict(one.columns), one.label] for one in examples] for name, examples in parts})
