"""What stands for data among a stage's inputs: texts, labels and their order, wherever they came from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from edgeicl.store import digest_of
from edgeicl.tasks.example import Example


def examples_digest(parts: Iterable[tuple[str, Sequence[Example]]]) -> str:
    """Digest of the examples of each named part."""
    return digest_of({name: [_parts(one) for one in examples] for name, examples in parts})


def _parts(example: Example) -> list[Any]:
    return [dict(example.columns), example.label, *([list(example.options)] if example.options else [])]
