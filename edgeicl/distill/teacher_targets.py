"""The teacher's probabilities for every transfer example under every demonstration set.

The teacher runs once: the first examples are scored for the gain, the rest only once that gain is known,
and both together are the targets. Over verbalizers they are float32 [N, L]; over the vocabulary float16
[N, V] (differences below 0.1 % of a log-probability; half the disk).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from edgeicl.distill.channel_scoring import score_prompts
from edgeicl.distill.checkpoint import is_kept, keep_file
from edgeicl.distill.gain import Gain, measure_gain
from edgeicl.distill.label_reader import LabelReader, Over
from edgeicl.progress import track
from edgeicl.store import CHECKPOINT
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder

TARGETS = "targets.safetensors"
GAIN = "gain.json"
WITHOUT = "without"


def seed_name(seed: int) -> str:
    """Name of a demonstration set in files."""
    return f"seed_{seed}"


def build_gain(
    folder: Path,
    reader: LabelReader,
    encoder: PromptEncoder,
    examples: Sequence[Example],
    *,
    contexts: Mapping[str, Sequence[int]],
    over: Over,
) -> None:
    """Writes the gain (`gain.json`) and the targets of `examples`, with and without demonstrations."""
    everything = {WITHOUT: encoder.leading, **contexts}
    kept = folder / CHECKPOINT
    scores = _score(reader, encoder, examples, everything, over, "measuring the teacher's gain", kept)
    of_labels = {name: _of_labels(values, encoder, over) for name, values in scores.items()}
    gain = measure_gain(
        [of_labels[name] for name in contexts],
        of_labels[WITHOUT],
        encoder.label_indices(examples),
        encoder.labels,
    )
    save_file(scores, folder / TARGETS)
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
) -> None:
    """Writes the targets of all `examples`; those that the gain was measured on come first, from its folder."""
    first = read_targets(gain_folder)
    rest = examples[len(first[WITHOUT]) :]
    targets = {name: first[name] for name in contexts}
    if rest:
        scores = _score(load_teacher(), encoder, rest, contexts, over, "teacher targets", folder / CHECKPOINT)
        targets = {name: np.concatenate([first[name], scores[name]]) for name in contexts}
    save_file(targets, folder / TARGETS)


def read_gain(folder: Path) -> Gain:
    """The gain that `build_gain` wrote."""
    return Gain.model_validate_json((folder / GAIN).read_text())


def read_targets(folder: Path) -> dict[str, NDArray[Any]]:
    """Log-probabilities [N, L] or [N, V] by demonstration set."""
    targets: dict[str, NDArray[Any]] = load_file(folder / TARGETS)
    return targets


def _score(
    reader: LabelReader,
    encoder: PromptEncoder,
    examples: Sequence[Example],
    contexts: Mapping[str, Sequence[int]],
    over: Over,
    description: str,
    kept: Path,
) -> dict[str, NDArray[Any]]:
    """Scores by context; each is kept as soon as it is whole, for a run that comes after a kill."""
    queries = encoder.queries(examples)
    stored = np.float16 if over == "vocabulary" else np.float32
    paths = {name: kept / f"{name}.safetensors" for name in contexts}
    done = {name for name, path in paths.items() if is_kept(path)}
    with track(description, len(contexts) * len(queries), already_done=len(done) * len(queries)) as advance:
        for name, before in contexts.items():
            if name in done:
                continue
            scores = score_prompts(reader, encoder, queries, before=before, over=over, advance=advance)
            keep_file(paths[name], partial(save_file, {name: scores.astype(stored)}))
    return {name: load_file(path)[name] for name, path in paths.items()}


def _of_labels(scores: NDArray[Any], encoder: PromptEncoder, over: Over) -> NDArray[Any]:
    """[N, L] of scores over either."""
    return scores[:, [word[0] for word in encoder.tokens.values()]] if over == "vocabulary" else scores
