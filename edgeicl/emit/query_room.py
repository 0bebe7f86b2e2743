"""Whether queries fit the context together with what stands before them and a label."""

from __future__ import annotations

from collections.abc import Sequence

from edgeicl.errors import DataError
from edgeicl.specs.target import Target
from edgeicl.tasks.example import Example


def require_query_room(
    examples: Sequence[Example],
    prompts: Sequence[Sequence[int]],
    *,
    longest_label: int,
    before: int,
    positions: int,
    target: Target,
) -> None:
    """DataError for a query that doesn't fit; all figures in tokens.

    `before` stands before each query, `positions` are the student's.
    """
    room = min(positions, target.context_tokens) - before
    for example, prompt in zip(examples, prompts, strict=True):
        if len(prompt) + longest_label > room:
            raise DataError(
                f"{example.where or 'an example'}: the query takes {len(prompt)} tokens and a label up to "
                f"{longest_label} more; found room for {max(room, 0)}: target "
                f"{target.name} has context_tokens {target.context_tokens}, the student "
                f"{positions} positions{f'; {before} tokens stand before it' if before else ''}",
                next_step="raise context_tokens, shorten the pattern, "
                + ("show fewer demonstrations, " if before else "")
                + "or drop the longest texts",
            )
