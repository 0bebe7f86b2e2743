"""What a teacher says in in-context learning distillation: of the target task, and in every episode."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from edgeicl.checkpoint import is_kept, keep_file
from edgeicl.distill.gain import measure_gain
from edgeicl.distill.in_context_tuning import episode_scores
from edgeicl.distill.label_reader import Over
from edgeicl.distill.objective import kl_to_teacher
from edgeicl.distill.predictions import ONLY
from edgeicl.distill.teacher_targets import GAIN, TARGETS
from edgeicl.distill.tuning_episodes import Episode
from edgeicl.distill.voting import Load, Sets, SetScores, scores_after
from edgeicl.numerics.voting import majority_vote
from edgeicl.progress import track
from edgeicl.store import CHECKPOINT, Workers
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder

SCORES = "scores.safetensors"

# Episodes of a part, each of which is kept as soon as it is whole.
_EPISODES_OF_A_PART = 256


def build_gain(
    folder: Path,
    load_given: Load,
    load_teacher: Load,
    encoder: PromptEncoder,
    examples: Sequence[Example],
    sets: Sets,
    workers: Workers,
) -> None:
    """Writes the teacher's scores after `sets`, and what it gains over the given one without demonstrations.

    The given teacher is what it was before it was tuned: a tuned one may need no demonstrations any more, and
    has a lot to teach nevertheless.
    """
    ask = partial(
        scores_after,
        queries=encoder.queries(examples),
        tokens=list(encoder.tokens.values()),
        workers=workers,
    )
    kept = folder / CHECKPOINT
    alone = {ONLY: [encoder.leading]}
    plain = ask(load_given, sets=alone, kept=kept / "without", description="teacher without demonstrations")
    shown = ask(load_teacher, sets=sets, kept=kept / "with", description="measuring the teacher's gain")
    if not workers.is_writer:
        return
    voted = [np.eye(len(encoder.labels))[majority_vote(np.exp(scores))] for scores in shown.values()]
    gain = measure_gain(voted, plain[ONLY][0], encoder.label_indices(examples), encoder.labels)
    save_file(shown, folder / SCORES)
    (folder / GAIN).write_text(gain.model_dump_json(indent=1) + "\n")


def read_scores(folder: Path) -> SetScores:
    """The teacher's scores that `build_gain` wrote."""
    scores: SetScores = load_file(folder / SCORES)
    return scores


def divergences(teacher: SetScores, student: SetScores) -> dict[str, float]:
    """Mean KL(teacher || student) in nats over all sets and queries, by run."""
    return {
        run: float(kl_to_teacher(torch.from_numpy(student[run]), torch.from_numpy(teacher[run])).mean())
        for run in teacher
    }


def build_episode_targets(
    folder: Path, load_teacher: Load, episodes: Sequence[Episode], *, over: Over, workers: Workers
) -> None:
    """Writes the teacher's log-probabilities at every read of every episode, once and for all epochs.

    All processes score, the writer writes.
    """
    # Half the disk for a vocabulary, at less than 0.1 % of a log-probability.
    stored = np.float16 if over == "vocabulary" else np.float32
    starts = range(0, len(episodes), _EPISODES_OF_A_PART)
    parts = {start: folder / CHECKPOINT / f"episodes {start}.safetensors" for start in starts}
    missing = workers.from_writer([start for start in starts if not is_kept(parts[start])])
    if missing:
        reader = load_teacher()
        mine = missing if reader.is_sharded else missing[workers.index :: workers.count]
        chosen = {start: episodes[start : start + _EPISODES_OF_A_PART] for start in mine}
        with track("teacher targets", sum(map(len, chosen.values()))) as advance:
            for start, part in chosen.items():
                scores = episode_scores(reader, part, over=over, advance=advance)
                named = {str(start + place): values.astype(stored) for place, values in enumerate(scores)}
                if workers.is_writer or not reader.is_sharded:
                    keep_file(parts[start], partial(save_file, named))
    workers.barrier()
    if workers.is_writer:
        whole = {name: values for part in parts.values() for name, values in load_file(part).items()}
        save_file(whole, folder / TARGETS)


def read_episode_targets(folder: Path) -> list[NDArray[Any]]:
    """Log-probabilities [reads, L] or [reads, V] of each episode, in order."""
    found = load_file(folder / TARGETS)
    return [found[str(number)] for number in range(len(found))]
