"""Who sees which example: demonstrations, transfer examples and evaluation never share a text."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass

from edgeicl.errors import DataError
from edgeicl.specs.manifest import Deviation
from edgeicl.tasks.demonstrations import choose
from edgeicl.tasks.example import Example
from edgeicl.tasks.examples_digest import examples_digest
from edgeicl.tasks.prompt import query_text

log = logging.getLogger(__name__)

_HELD_OUT_SHARE = 10


@dataclass(frozen=True)
class TaskData:
    """A task's examples, dealt out."""

    demonstrations: dict[int, list[Example]]
    transfer: list[Example]
    held_out: list[Example]
    deviations: tuple[Deviation, ...]

    @property
    def scored(self) -> list[Example]:
        """What the teacher scores, in the order of its targets."""
        return self.transfer + self.held_out

    @property
    def digest(self) -> str:
        """Changes with any text, label or place."""
        parts = {f"seed {seed}": shown for seed, shown in self.demonstrations.items()}
        parts |= {"transfer": self.transfer, "held_out": self.held_out}
        return examples_digest(parts.items())


def deal(
    train: Sequence[Example],
    evaluation: Sequence[Example],
    *,
    pattern: str,
    labels: Sequence[str],
    demonstrations: int,
    balanced: bool,
    demonstration_seeds: Sequence[int],
    transfer_examples: int,
    seed: int,
) -> TaskData:
    """Deals `train` out: a demonstration set per seed, then transfer examples, of which 1 in 10 is held out.

    Training texts that the evaluation data holds too are left out (a deviation), repeated ones count once.

    Raises:
        DataError: too few examples for the demonstrations, or none left to transfer on.
    """
    evaluated = {query_text(pattern, example) for example in evaluation}
    distinct: dict[str, Example] = {}
    for example in train:
        distinct.setdefault(query_text(pattern, example), example)
    usable = {text: example for text, example in distinct.items() if text not in evaluated}
    deviations = []
    if len(usable) < len(distinct):
        deviations.append(
            Deviation(
                what="training examples",
                where="task.train",
                asked=str(len(distinct)),
                got=str(len(usable)),
                why=f"{len(distinct) - len(usable)} texts are in the evaluation data too",
            )
        )
    if len(distinct) < len(train):
        log.info("task.train: %d repeated texts are used once", len(train) - len(distinct))
    pool = list(usable.values())
    shown = {
        chosen: choose(pool, count=demonstrations, balanced=balanced, seed=chosen, labels=labels)
        for chosen in demonstration_seeds
    }
    taken = {query_text(pattern, example) for examples in shown.values() for example in examples}
    rest = [example for text, example in usable.items() if text not in taken]
    random.Random(f"transfer/{seed}").shuffle(rest)
    transfer = rest[:transfer_examples]
    if len(transfer) < 2:
        raise DataError(
            f"task.train: {len(pool)} usable examples, of which {len(taken)} are demonstrations; "
            f"found {len(transfer)} left to transfer on, expected at least 2",
            next_step="give more training data, or fewer demonstrations or seeds",
        )
    if len(transfer) < transfer_examples:
        deviations.append(
            Deviation(
                what="transfer examples",
                where="distill.transfer_examples",
                asked=str(transfer_examples),
                got=str(len(transfer)),
                why=f"task.train has {len(pool)} usable examples, and {len(taken)} of them are demonstrations",
            )
        )
    held_out = max(1, len(transfer) // _HELD_OUT_SHARE)
    return TaskData(shown, transfer[held_out:], transfer[:held_out], tuple(deviations))
