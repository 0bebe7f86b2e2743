"""The hypernetwork that an artifact keeps beside what is deployed, and what it makes of demonstrations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeicl.bench.artifact import Artifact
from edgeicl.errors import IntegrityError
from edgeicl.specs.manifest import COMPRESSOR, MANIFEST
from edgeicl.store import file_sha256


def compressed(artifact: Artifact, sets: Sequence[NDArray[np.int64]]) -> list[NDArray[Any]]:
    """Vectors [l, H] for the token ids of each demonstration set; no training.

    Raises:
        IntegrityError: the folder of the hypernetwork is missing, or one of its files isn't the one written.
        DataError: more tokens than the hypernetwork reads.
    """
    from edgeicl.distill.hypernetwork import compress, load_hypernetwork

    hypernetwork = load_hypernetwork(compressor_folder(artifact))
    return [compress(hypernetwork, [int(token) for token in ids]) for ids in sets]


def compressor_folder(artifact: Artifact) -> Path:
    """The folder of the hypernetwork, its files checked. IntegrityError as told by `compressed`."""
    files = {
        name: sha256 for name, sha256 in artifact.manifest.files.items() if name.startswith(f"{COMPRESSOR}/")
    }
    wrong = [
        name
        for name, sha256 in files.items()
        if not (artifact.path / name).is_file() or file_sha256(artifact.path / name) != sha256
    ]
    if wrong or not files:
        raise IntegrityError(
            f"{artifact.path} does not hold the hypernetwork that made its vectors: "
            f"{', '.join(wrong) or COMPRESSOR} is missing or is not what {MANIFEST} describes",
            next_step=f"take the folder that `edgeicl compile` wrote, with {COMPRESSOR}/, which no app needs",
        )
    return artifact.path / COMPRESSOR
