"""The vectors of every demonstration set, and which of them are deployed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeicl.distill.hypernetwork import Hypernetwork, compress
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.scoring import score_queries
from edgeicl.errors import EdgeiclError
from edgeicl.progress import track
from edgeicl.specs.prefix import PREFIX_SOURCE, read_prefix_source, write_prefix_source

ALL_SETS = "all_sets.safetensors"
RECORD = "compression.json"


def build_compression(
    folder: Path,
    hypernetwork: Hypernetwork,
    reader: LabelReader,
    contexts: Mapping[int, Sequence[int]],
    *,
    queries: Sequence[Sequence[int]],
    tokens: Sequence[tuple[int, ...]],
    gold: NDArray[np.int64],
    votes: int,
) -> None:
    """Writes the vectors of each of `contexts` (by demonstration seed), and those of the best `votes` of them.

    Best is the lowest cross-entropy of the labels `gold` [N] after held-out `queries`, read by `reader`.
    """
    vectors, losses = {}, {}
    with track("compressing demonstrations", len(contexts)) as advance:
        for seed, context in contexts.items():
            vectors[seed] = compress(hypernetwork, context)
            scores = score_queries(reader, queries, tokens, before=vectors[seed])
            losses[seed] = float(-scores[np.arange(len(gold)), gold].mean())
            advance(1)
    deployed = best_sets(losses, count=votes)
    write_prefix_source(folder / ALL_SETS, list(vectors.values()))
    write_prefix_source(folder / PREFIX_SOURCE, [vectors[seed] for seed in deployed])
    record = {
        "held_out_cross_entropy": {str(seed): loss for seed, loss in losses.items()},
        "deployed": deployed,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1) + "\n")


def read_vectors(folder: Path) -> list[NDArray[Any]]:
    """Vectors [l, H] of all demonstration sets that `build_compression` wrote, in their order."""
    return read_prefix_source(folder / ALL_SETS)


def read_deployed(folder: Path) -> list[int]:
    """Demonstration seeds whose vectors are deployed, the best first."""
    deployed: list[int] = json.loads((folder / RECORD).read_text())["deployed"]
    return deployed


def best_sets(losses: Mapping[int, float], *, count: int) -> list[int]:
    """The `count` seeds with the lowest loss, the lowest first. EdgeiclError where losses aren't finite."""
    if not all(map(math.isfinite, losses.values())):
        raise EdgeiclError(
            f"training of the hypernetwork diverged; found the held-out cross-entropy {dict(losses)}, "
            "expected a finite one",
            next_step="lower learning_rate in distill.mend.on_text and on_tasks, or raise "
            "distill.training.warmup_ratio",
        )
    return sorted(losses, key=lambda seed: (losses[seed], seed))[:count]
