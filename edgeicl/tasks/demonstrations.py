"""Which labelled examples are shown."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TypeVar

from edgeicl.errors import DataError
from edgeicl.tasks.example import Example

Item = TypeVar("Item")


def choose(
    examples: Sequence[Example],
    *,
    count: int,
    balanced: bool,
    seed: int | str,
    labels: Sequence[str],
    where: str = "the training data",
) -> list[Example]:
    """`count` of `examples`, which are of `where`, in random order, always the same for the same `seed`.

    `balanced` gives every label as many as any other, or one more where `count` doesn't divide evenly; which
    labels get one more is random too.

    Raises:
        DataError: too few examples, with the figures of each label.
    """
    rng = random.Random(f"demonstrations/{seed}")
    if not balanced:
        if len(examples) < count:
            raise DataError(
                f"{count} demonstrations were asked for; found {len(examples)} examples in {where}",
                next_step=f"ask for fewer demonstrations, or put more examples into {where}",
            )
        return rng.sample(list(examples), count)
    by_label: dict[str, list[Example]] = {label: [] for label in labels}
    for example in examples:
        by_label[example.label].append(example)
    return draw_balanced(rng, by_label, count, where=where)


def draw_balanced(
    rng: random.Random,
    by_label: Mapping[str, Sequence[Item]],
    count: int,
    *,
    where: str = "the training data",
) -> list[Item]:
    """`count` items in random order, of every label as many as of any other, or one more.

    Raises:
        DataError: too few of a label.
    """
    order = list(by_label)
    rng.shuffle(order)
    quota = {label: count // len(order) + (place < count % len(order)) for place, label in enumerate(order)}
    short = [
        f"{label}: {len(items)} of {quota[label]}"
        for label, items in by_label.items()
        if len(items) < quota[label]
    ]
    if short:
        raise DataError(
            f"{count} balanced demonstrations need more examples than {where} has; found {', '.join(short)}",
            next_step=f"ask for fewer demonstrations, put more examples into {where}, or give up balance "
            "(demonstrations.balanced: false; edgeicl prefix --no-balanced)",
        )
    chosen = [item for label in order for item in rng.sample(by_label[label], quota[label])]
    rng.shuffle(chosen)
    return chosen
