"""Training sequences of in-context tuning: demonstrations of one task, then a query of it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from edgeicl.distill.label_batch import LabelBatch, LabelPass, padded_batch
from edgeicl.distill.tuned_tasks import TunedTask
from edgeicl.errors import DataError
from edgeicl.numerics.padding import right_padded
from edgeicl.tasks.demonstrations import draw_balanced

Words = tuple[tuple[int, ...], ...]
"""Tokens of each label's word(s), in the order of the labels."""


@dataclass(frozen=True)
class Episode:
    """Token ids up to the query's last one; the places after which a label is read; the labels there."""

    ids: tuple[int, ...]
    reads: tuple[int, ...]
    gold: tuple[int, ...]
    words: Words


def draw_episodes(
    tasks: Sequence[TunedTask], *, count: int, demonstrations: int, balanced: bool, every_label: bool, seed: int
) -> list[Episode]:
    """`count` episodes, of every task as many as of any other, in turn (or one more).

    `every_label` reads the labels of demonstrations too; these are then drawn as they come, since in a balanced
    set the last labels follow from the first.

    Raises:
        DataError: a task with too few examples, or whose label words are not one token each where
            `every_label` needs that.
    """
    drawers = [_Drawer(task, demonstrations, balanced and not every_label, every_label) for task in tasks]
    return [
        drawers[number % len(drawers)].draw(random.Random(f"episode/{seed}/{number}"))
        for number in range(count)
    ]


class _Drawer:
    """Draws episodes of one task, whose examples are encoded once."""

    def __init__(self, task: TunedTask, demonstrations: int, balanced: bool, every_label: bool) -> None:
        encoder = task.encoder
        self.words = tuple(encoder.tokens.values())
        self.demonstrations, self.balanced, self.every_label = demonstrations, balanced, every_label
        if every_label and any(len(word) > 1 for word in self.words):
            raise DataError(
                f"{task.where}: labels are to be read at demonstrations too, which needs label words of one "
                f"token; found {encoder.tokens}",
                next_step="choose other verbalizers, or set distill.icl.labels: query",
            )
        if len(task.examples) <= demonstrations:
            raise DataError(
                f"{task.where}: found {len(task.examples)} usable examples; expected more than the "
                f"{demonstrations} demonstrations of an episode",
                next_step="give more examples, or lower distill.demonstrations.count",
            )
        self.leading = encoder.leading
        self.queries = encoder.queries(task.examples)
        self.whole = [encoder.demonstrations([one])[len(encoder.leading) :] for one in task.examples]
        self.gold = [int(label) for label in encoder.label_indices(task.examples)]
        self.by_label: dict[str, list[int]] = {label: [] for label in encoder.labels}
        for place, example in enumerate(task.examples):
            self.by_label[example.label].append(place)

    def draw(self, rng: random.Random) -> Episode:
        everything = range(len(self.queries))
        shown = (
            draw_balanced(rng, self.by_label, self.demonstrations)
            if self.balanced
            else rng.sample(everything, self.demonstrations)
        )
        asked = rng.choice(everything)
        while asked in shown:
            asked = rng.choice(everything)
        ids, reads = list(self.leading), []
        for place in shown:
            reads.append(len(ids) + len(self.queries[place]) - 1)
            ids += self.whole[place]
        ids += self.queries[asked]
        reads.append(len(ids) - 1)
        gold = [self.gold[place] for place in (*shown, asked)]
        first = 0 if self.every_label else len(shown)
        return Episode(tuple(ids), tuple(reads[first:]), tuple(gold[first:]), self.words)


def episode_batch(episodes: Sequence[Episode], device: torch.device) -> LabelBatch:
    """One batch of episodes whose label words are the same; what is read comes episode by episode."""
    words = episodes[0].words
    if all(len(episode.reads) == 1 for episode in episodes):
        return padded_batch([episode.ids for episode in episodes], words, device)
    ids, _ = right_padded([episode.ids for episode in episodes])
    read = [[row * ids.shape[1] + place] for row, episode in enumerate(episodes) for place in episode.reads]
    one = LabelPass(torch.from_numpy(ids).to(device), torch.tensor(read, device=device))
    return LabelBatch((one,), words)


def by_words(episodes: Sequence[Episode], numbers: Sequence[int]) -> list[list[int]]:
    """`numbers` of episodes, those with the same label words together: they share a batch."""
    groups: dict[Words, list[int]] = {}
    for number in numbers:
        groups.setdefault(episodes[number].words, []).append(number)
    return list(groups.values())
