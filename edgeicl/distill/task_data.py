"""Who sees which example: demonstrations, transfer examples and evaluation never share a text."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeicl.errors import DataError
from edgeicl.specs.manifest import Deviation
from edgeicl.tasks.demonstrations import choose
from edgeicl.tasks.example import Example
from edgeicl.tasks.examples_digest import examples_digest
from edgeicl.tasks.leakage import Leakage, by_query, shared_columns, text_key, unevaluated

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
    shown_from: Mapping[int, Sequence[Example]] | None = None,
    leakage: Leakage = "refuse",
) -> TaskData:
    """Deals `train` out: a demonstration set per seed, then transfer examples, of which 1 in 10 is held out.

    Repeated texts count once, and no transfer example is a demonstration.

    Args:
        shown_from: Where each seed's demonstrations are drawn from, if not from `train`.
        leakage: What becomes of training texts that the evaluation data holds too: see `leakage.text_key`.

    Raises:
        DataError: too few examples for the demonstrations, none left to transfer on (unless 0 are asked for),
            or leakage.
    """
    evaluated = by_query(pattern, evaluation)
    deviations: list[Deviation] = []

    def clean(examples: Sequence[Example], where: str) -> dict[str, Example]:
        """Distinct examples that the evaluation doesn't hold, by their texts."""
        texts = by_query(pattern, examples)
        if len(texts) < len(examples):
            log.info("%s: %d repeated texts are used once", where, len(examples) - len(texts))
        kept, told = unevaluated(texts, evaluated, leakage=leakage, where=where)
        deviations.extend(told)
        return kept

    usable = clean(train, "task.train")
    sources = {
        each: list(clean(examples, f"distill.demonstrations.source, seed {each}").values())
        for each, examples in (shown_from or {}).items()
    }
    pool = list(usable.values())
    shown = {
        chosen: choose(
            sources.get(chosen, pool),
            count=demonstrations,
            balanced=balanced,
            seed=chosen,
            labels=labels,
            where=f"distill.demonstrations.source, seed {chosen}" if chosen in sources else "task.train",
        )
        for chosen in demonstration_seeds
    }
    taken = {text_key(pattern, example) for examples in shown.values() for example in examples}
    rest = [example for text, example in usable.items() if text not in taken]
    random.Random(f"transfer/{seed}").shuffle(rest)
    transfer = rest[:transfer_examples]
    if transfer_examples and len(transfer) < 2:
        raise DataError(
            f"task.train: {len(pool)} usable examples, of which {len(pool) - len(rest)} are demonstrations; "
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
                why=f"task.train has {len(pool)} usable examples, and {len(pool) - len(rest)} of them are "
                "demonstrations",
            )
        )
    trained_on = [*transfer, *(example for examples in shown.values() for example in examples)]
    for column, count in shared_columns(pattern, trained_on, evaluation).items():
        log.warning(
            "%d of %d transfer examples and demonstrations have the %s of an evaluation example, in another "
            "text",
            count,
            len(trained_on),
            column,
        )
    held_out = max(1, len(transfer) // _HELD_OUT_SHARE)
    return TaskData(shown, transfer[held_out:], transfer[:held_out], tuple(deviations))
