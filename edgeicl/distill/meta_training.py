"""Episodes for meta-training: demonstrations and queries of one task, drawn anew for each number."""

from __future__ import annotations

import random
from collections.abc import Sequence, Set
from dataclasses import dataclass

from edgeicl.distill.frozen_reading import Query
from edgeicl.distill.tuned_tasks import TunedTask
from edgeicl.errors import DataError
from edgeicl.specs.manifest import Deviation
from edgeicl.tasks.demonstrations import choose
from edgeicl.tasks.example import Example
from edgeicl.tasks.leakage import TextKey, by_columns, fewer_examples

_DRAWS = 20


@dataclass(frozen=True)
class Episode:
    """The tokens of a demonstration set, leading tokens included, and queries that follow it."""

    context: list[int]
    queries: list[Query]


@dataclass(frozen=True)
class Room:
    """Most tokens that a demonstration set may have, alone and together with a query and its label."""

    context_tokens: int
    prompt_tokens: int

    def fits(self, episode: Episode) -> bool:
        """Whether both models can read the episode."""
        longest = max(len(query.read) for query in episode.queries)
        context = len(episode.context)
        return context <= self.context_tokens and context + longest <= self.prompt_tokens


def draw_episode(
    tasks: Sequence[TunedTask], *, demonstrations: int, balanced: bool, queries: int, room: Room, seed: str
) -> Episode:
    """The episode of `seed`: a task at random, demonstrations of it, and queries that are none of them.

    One that is too long for either model is drawn again.

    Raises:
        DataError: a task with too few examples, or with examples so long that 20 draws were too long.
    """
    for attempt in range(_DRAWS):
        rng = random.Random(f"episode/{seed}/{attempt}")
        task = rng.choice(tasks)
        episode = _draw(rng, task, demonstrations, balanced, queries)
        if room.fits(episode):
            return episode
    raise DataError(
        f"{task.where}: {_DRAWS} draws of {demonstrations} demonstrations had more than "
        f"{room.context_tokens:,} tokens, or more than {room.prompt_tokens:,} with a query",
        next_step="lower distill.demonstrations.count, or leave the longest examples out of the data",
    )


def _draw(rng: random.Random, task: TunedTask, count: int, balanced: bool, queries: int) -> Episode:
    encoder = task.encoder
    shown = choose(
        task.examples, count=count, balanced=balanced, seed=rng.getrandbits(32), labels=encoder.labels
    )
    taken = {id(example) for example in shown}
    # One more for each demonstration, which may be drawn here too.
    drawn = rng.sample(task.examples, min(len(task.examples), queries + count))
    asked = [example for example in drawn if id(example) not in taken][:queries]
    if len(asked) < queries:
        raise DataError(
            f"{task.where}: {len(task.examples)} examples; expected at least {count} demonstrations and "
            f"{queries} queries",
            next_step="give the task more training examples, or lower distill.mend.on_tasks.queries",
        )
    rows = zip(encoder.queries(asked), asked, strict=True)
    return Episode(
        encoder.demonstrations(shown),
        [Query(tuple(row), encoder.tokens[example.label]) for row, example in rows],
    )


def to_train_on(
    examples: Sequence[Example], *, pattern: str, evaluated: Set[TextKey], kept_back: Set[TextKey], where: str
) -> tuple[tuple[Example, ...], tuple[Deviation, ...]]:
    """Distinct `examples` without the texts that training must not see, and a deviation that counts those.

    Args:
        evaluated: Texts of the evaluation data.
        kept_back: Texts of the evaluated demonstration sets and of what their vectors are chosen on.
    """
    texts = by_columns(pattern, examples)
    kept = {key: example for key, example in texts.items() if key not in evaluated and key not in kept_back}
    if len(kept) == len(texts):
        return tuple(kept.values()), ()
    in_evaluation = len(texts.keys() & evaluated)
    why = (
        f"{in_evaluation} texts are in the evaluation data too, and "
        f"{len(texts) - len(kept) - in_evaluation} are "
        "demonstrations or held-out examples of the target"
    )
    return tuple(kept.values()), (fewer_examples(where, texts, kept, why),)
