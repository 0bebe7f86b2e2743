"""What a teacher says in in-context learning distillation: of the target task, and in every episode."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from edgeicl.distill.checkpoint import is_kept, keep_file
from edgeicl.distill.gain import measure_gain
from edgeicl.distill.in_context_tuning import episode_scores
from edgeicl.distill.label_reader import LabelReader, Over
from edgeicl.distill.objective import kl_to_teacher
from edgeicl.distill.scoring import score_queries
from edgeicl.distill.teacher_targets import GAIN, TARGETS
from edgeicl.distill.tuning_episodes import Episode
from edgeicl.distill.voting import Sets
from edgeicl.numerics.voting import majority_vote
from edgeicl.progress import track
from edgeicl.store import CHECKPOINT
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder

SCORES = "scores.safetensors"

# Episodes of a part, each of which is kept as soon as it is whole.
_EPISODES_OF_A_PART = 512

SetScores = dict[str, NDArray[np.float32]]
"""Log-probabilities [M, N, L] of the labels of N queries after each of M demonstration sets, by seed."""


def scores_after(
    reader: LabelReader,
    queries: Sequence[Sequence[int]],
    tokens: Sequence[tuple[int, ...]],
    sets: Sets,
    advance: Callable[[int], None] = lambda _: None,
) -> SetScores:
    """A model's answers to `queries` after all demonstration sets."""
    return {
        name: np.stack(
            [score_queries(reader, queries, tokens, before=before, advance=advance) for before in several]
        )
        for name, several in sets.items()
    }


def build_gain(
    folder: Path,
    load_given: Callable[[], LabelReader],
    load_teacher: Callable[[], LabelReader],
    encoder: PromptEncoder,
    examples: Sequence[Example],
    sets: Sets,
) -> None:
    """Writes the teacher's scores after `sets`, and what it gains over the given one without demonstrations.

    The given teacher is what it was before it was tuned: a tuned one may need no demonstrations any more, and
    has a lot to teach nevertheless.
    """
    queries, tokens = encoder.queries(examples), list(encoder.tokens.values())
    count = 1 + sum(len(several) for several in sets.values())
    with track("measuring the teacher's gain", count * len(queries)) as advance:
        plain = score_queries(load_given(), queries, tokens, before=encoder.leading, advance=advance)
        shown = scores_after(load_teacher(), queries, tokens, sets, advance)
    voted = [np.eye(len(tokens))[majority_vote(np.exp(scores))] for scores in shown.values()]
    gain = measure_gain(voted, plain, encoder.label_indices(examples), encoder.labels)
    save_file(shown, folder / SCORES)
    (folder / GAIN).write_text(gain.model_dump_json(indent=1) + "\n")


def read_scores(folder: Path) -> SetScores:
    """The teacher's scores that `build_gain` wrote."""
    scores: SetScores = load_file(folder / SCORES)
    return scores


def divergences(teacher: SetScores, student: SetScores) -> dict[str, float]:
    """Mean KL(teacher || student) in nats over all sets and queries, by seed."""
    return {
        name: float(
            kl_to_teacher(
                *(torch.from_numpy(scores[name]).flatten(0, 1) for scores in (student, teacher))
            ).mean()
        )
        for name in teacher
    }


def build_episode_targets(
    folder: Path, load_teacher: Callable[[], LabelReader], episodes: Sequence[Episode], *, over: Over
) -> None:
    """Writes the teacher's log-probabilities at every read of every episode, once and for all epochs."""
    # Half the disk for a vocabulary, at less than 0.1 % of a log-probability.
    stored = np.float16 if over == "vocabulary" else np.float32
    starts = range(0, len(episodes), _EPISODES_OF_A_PART)
    parts = {start: folder / CHECKPOINT / f"episodes {start}.safetensors" for start in starts}
    missing = [start for start in starts if not is_kept(parts[start])]
    done = min(len(episodes), _EPISODES_OF_A_PART * (len(starts) - len(missing)))
    reader = cache(load_teacher)  # not loaded where all parts are kept
    with track("teacher targets", len(episodes), already_done=done) as advance:
        for start in missing:
            chosen = episodes[start : start + _EPISODES_OF_A_PART]
            scores = episode_scores(reader(), chosen, over=over, advance=advance)
            named = {str(start + place): values.astype(stored) for place, values in enumerate(scores)}
            keep_file(parts[start], partial(save_file, named))
    whole = {name: values for part in parts.values() for name, values in load_file(part).items()}
    save_file(whole, folder / TARGETS)


def read_episode_targets(folder: Path) -> list[NDArray[Any]]:
    """Log-probabilities [reads, L] or [reads, V] of each episode, in order."""
    found = load_file(folder / TARGETS)
    return [found[str(number)] for number in range(len(found))]
