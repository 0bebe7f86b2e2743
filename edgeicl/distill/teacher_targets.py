"""The teacher's probabilities for every transfer example under every demonstration set.

The teacher runs once: the first examples are scored for the gain, the rest only once that gain is known,
and both together are the targets. Over verbalizers they are float32 [N, L]; over the vocabulary float16
[N, V] (differences below 0.1 % of a log-probability; half the disk).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import load_file

from edgeicl.distill.channel_scoring import slices_scorer
from edgeicl.distill.gain import Gain, measure_gain
from edgeicl.distill.joined_tensors import Part, write_joined
from edgeicl.distill.label_reader import LabelReader, Over
from edgeicl.distill.shards import parts_of, score_shards, shards_of
from edgeicl.store import CHECKPOINT, Workers
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder

TARGETS = "targets.safetensors"
GAIN = "gain.json"
WITHOUT = "without"


GAIN_EXAMPLES = 512
"""Transfer examples that the teacher's gain is measured on; the rest are scored once it is known."""


def seed_name(seed: int) -> str:
    """Name of a demonstration set in files."""
    return f"seed_{seed}"


def build_gain(
    folder: Path,
    load_teacher: Callable[[], LabelReader],
    encoder: PromptEncoder,
    examples: Sequence[Example],
    *,
    contexts: Mapping[str, Sequence[int]],
    over: Over,
    workers: Workers,
) -> None:
    """Writes the gain (`gain.json`) and the targets of `examples`, with and without demonstrations.

    All processes score, the writer writes.
    """
    everything = {WITHOUT: encoder.leading, **contexts}
    scored = _score(
        folder, load_teacher, encoder, examples, everything, over, workers, "measuring the teacher's gain"
    )
    if not workers.is_writer:
        return
    write_joined(folder / TARGETS, scored)
    of_labels = {name: _of_labels(values, encoder, over) for name, values in read_targets(folder).items()}
    gain = measure_gain(
        [of_labels[name] for name in contexts],
        of_labels[WITHOUT],
        encoder.label_indices(examples),
        encoder.labels,
    )
    (folder / GAIN).write_text(gain.model_dump_json(indent=1) + "\n")


def build_targets(
    folder: Path,
    load_teacher: Callable[[], LabelReader],
    encoder: PromptEncoder,
    examples: Sequence[Example],
    *,
    contexts: Mapping[str, Sequence[int]],
    over: Over,
    gain_folder: Path,
    workers: Workers,
) -> None:
    """Writes the targets of all `examples`; those that the gain was measured on come first, from its folder.

    All processes score, the writer writes.
    """
    rest = examples[len(read_targets(gain_folder)[WITHOUT]) :]
    scored = _score(folder, load_teacher, encoder, rest, contexts, over, workers, "teacher targets")
    if workers.is_writer:
        first = {name: Part(gain_folder / TARGETS, name) for name in contexts}
        write_joined(folder / TARGETS, {name: [first[name], *scored.get(name, ())] for name in contexts})


def read_gain(folder: Path) -> Gain:
    """The gain that `build_gain` wrote."""
    return Gain.model_validate_json((folder / GAIN).read_text())


def read_targets(folder: Path) -> dict[str, NDArray[Any]]:
    """Log-probabilities [N, L] or [N, V] by demonstration set; read from the disk where they are looked at."""
    return {name: values.numpy() for name, values in load_file(folder / TARGETS).items()}


def _score(
    folder: Path,
    load_teacher: Callable[[], LabelReader],
    encoder: PromptEncoder,
    examples: Sequence[Example],
    contexts: Mapping[str, Sequence[int]],
    over: Over,
    workers: Workers,
    description: str,
) -> dict[str, list[Part]]:
    """Scores in shards below `folder`; to the writer, where they are, by context."""
    kept = folder / CHECKPOINT
    score_shards(
        load_teacher,
        encoder.queries(examples),
        list(encoder.tokens.values()),
        contexts=contexts,
        over=over,
        stored=np.float16 if over == "vocabulary" else np.float32,
        kept=kept,
        workers=workers,
        description=description,
        score=slices_scorer(encoder),
    )
    return parts_of(kept, shards_of(contexts, len(examples))) if workers.is_writer else {}


def _of_labels(scores: NDArray[Any], encoder: PromptEncoder, over: Over) -> NDArray[Any]:
    """[N, L] of scores over either."""
    return scores[:, [word[0] for word in encoder.tokens.values()]] if over == "vocabulary" else scores
