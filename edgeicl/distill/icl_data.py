"""Who sees which example in in-context learning distillation (arXiv 2212.10670), under either paradigm."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeicl.distill.tuned_tasks import TunedTask, refuse_the_same_question
from edgeicl.errors import DataError
from edgeicl.tasks.demonstrations import choose
from edgeicl.tasks.example import Example
from edgeicl.tasks.leakage import text_keys

# Examples of the target task that the teacher's gain is measured on, under paradigm `meta`.
_MEASURED_EXAMPLES = 256


@dataclass(frozen=True)
class Shown:
    """The demonstration sets of the target task at inference: `votes` of `count` examples for each seed."""

    count: int
    balanced: bool
    seeds: Sequence[int]
    votes: int


@dataclass(frozen=True)
class IclData:
    """Examples, dealt out: what is tuned on, what is shown at inference, and what is neither.

    On `measured` examples of the target task the teacher's gain is measured, and the demonstration sets that
    the student agrees on with its teacher are found.
    """

    tuned: tuple[TunedTask, ...]
    shown: Mapping[int, Sequence[Sequence[Example]]]
    measured: Sequence[Example]


def deal_meta(
    target: TunedTask,
    tuned: Sequence[TunedTask],
    shown: Shown,
    *,
    sources: Mapping[int, TunedTask] | None = None,
    seed: int,
) -> IclData:
    """Paradigm `meta`: other tasks are tuned on, the target is met with demonstrations alone.

    `sources` are what a seed's sets are drawn from, if not from `target`.

    Raises:
        DataError: too few examples, or a tuned task that is the target in disguise.
    """
    for task in tuned:
        refuse_the_same_question(task, target)
    sets = _demonstration_sets(target, shown, sources or {})
    examples = [example for several in sets.values() for one in several for example in one]
    return IclData(tuple(tuned), sets, _others(target, examples, _MEASURED_EXAMPLES, seed))


def deal_multitask(
    target: TunedTask,
    others: Sequence[TunedTask],
    shown: Shown,
    *,
    train_examples: int,
    dev_examples: int,
    seed: int,
) -> IclData:
    """Paradigm `multitask`: a few examples of every target task, to tune on and to show.

    Raises:
        DataError: too few examples.
    """
    few = tuple(
        TunedTask(
            task.where,
            task.encoder,
            tuple(
                choose(
                    task.examples,
                    count=train_examples,
                    balanced=shown.balanced,
                    seed=f"few/{seed}",
                    labels=task.encoder.labels,
                )
            ),
        )
        for task in (target, *others)
    )
    sets = _demonstration_sets(few[0], shown, {})
    return IclData(few, sets, _others(target, few[0].examples, dev_examples, seed))


def _demonstration_sets(
    task: TunedTask, shown: Shown, sources: Mapping[int, TunedTask]
) -> dict[int, list[list[Example]]]:
    return {
        seed: [
            choose(
                sources.get(seed, task).examples,
                count=shown.count,
                balanced=shown.balanced,
                seed=f"{seed}/{vote}" if vote else seed,
                labels=task.encoder.labels,
            )
            for vote in range(shown.votes)
        ]
        for seed in shown.seeds
    }


def _others(task: TunedTask, taken: Sequence[Example], count: int, seed: int) -> list[Example]:
    """`count` examples of the task, or as many as there are, none with a text of `taken`."""
    used = set(text_keys(task.encoder.pattern, taken))
    keys = text_keys(task.encoder.pattern, task.examples)
    rest = [example for key, example in zip(keys, task.examples, strict=True) if key not in used]
    if not rest:
        raise DataError(
            f"{task.where}: all {len(task.examples)} usable examples are shown; found none left to measure the "
            "teacher's gain on, expected at least 1",
            next_step="give more training data, or fewer demonstrations or seeds",
        )
    return random.Random(f"measured/{seed}").sample(rest, min(count, len(rest)))
