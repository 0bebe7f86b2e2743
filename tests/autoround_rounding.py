"""Weights of the layers as AutoRound rounds them: `autoround_program` in a Python that has it.

Bytes are counted matrix by matrix, as an artifact would store them: the matrices that an artifact packs into
one group may have formats of their own here.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from edgeicl.bench.devices.output import last_lines
from edgeicl.models.anatomy import WeightGroup
from edgeicl.numerics.affine import filled_blocks
from edgeicl.numerics.size import group_bytes
from edgeicl.specs.quant_plan import Format

Floats = NDArray[np.float32]

ITERATIONS = 200
"""Of its tuning: its own default."""
_PROGRAM = Path(__file__).with_name("autoround_program.py")
_TIMEOUT_S = 3600


@dataclass(frozen=True)
class Rounded:
    """The layers' weight groups float32 [N, K], their bytes, and how many matrices have which format."""

    values: Mapping[str, Floats]
    stored_bytes: int
    formats: Mapping[Format, int]


def can_store(format_: Format) -> bool:
    """Whether AutoRound has the format: it refuses zero points with 8 bits."""
    return format_.symmetric or format_.bits < 8


def layers_rounded(
    python: Path,
    checkpoint: Path,
    groups: Sequence[WeightGroup],
    documents: Sequence[Sequence[int]],
    *,
    piece_tokens: int,
    offered: Sequence[Format],
    jobs: Sequence[Format | int],
) -> list[Rounded]:
    """What AutoRound makes of the layers, for each job: tuned in one format, or searched within bytes.

    Args:
        python: The interpreter of an environment that has auto-round.
        checkpoint: The model's folder.
        groups: The model's weight groups; those outside of the layers are left out.
        documents: Token ids to calibrate on; joined, and cut into pieces of `piece_tokens`.
        offered: What a search may choose among, for each matrix of its own: those whose blocks divide all rows.
        jobs: A format for all matrices, one of those offered, or the most bytes of a search.

    Raises:
        RuntimeError: AutoRound failed, with its last words.
        ValueError: it wrote a block with more levels than its format has.
    """
    layers = [group for group in groups if group.layer is not None]
    ids = np.array([token for document in documents for token in document], np.int64)
    pieces = ids[: len(ids) // piece_tokens * piece_tokens].reshape(-1, piece_tokens)
    widths = {group.shape[1] for group in layers}
    options = [f for f in offered if can_store(f) and all(width % f.block_of(width) == 0 for width in widths)]
    shapes = {
        name: (rows, group.shape[1])
        for group in layers
        for name, rows in zip(_modules(group), group.parts, strict=True)
    }
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        save_file({"pieces": pieces}, folder / "pieces.safetensors")
        outputs = [folder / f"{index}.safetensors" for index in range(len(jobs))]
        request = {
            "checkpoint": str(checkpoint.resolve()),
            "pieces": str(folder / "pieces.safetensors"),
            "options": [{"bits": f.bits, "group_size": f.block_size, "sym": f.symmetric} for f in options],
            "bytes": {name: [group_bytes(*shape, f) for f in options] for name, shape in shapes.items()},
            "iterations": ITERATIONS,
            "jobs": [
                {"output": str(output)}
                | ({"option": options.index(job)} if isinstance(job, Format) else {"limit_bytes": job})
                for job, output in zip(jobs, outputs, strict=True)
            ],
        }
        chosen = _asked(python, request, folder)
        return [
            _read(layers, load_file(output), {name: options[index] for name, index in one.items()})
            for one, output in zip(chosen, outputs, strict=True)
        ]


def _modules(group: WeightGroup) -> list[str]:
    return [name.removesuffix(".weight") for name in group.weights]


def _asked(python: Path, request: Mapping[str, Any], folder: Path) -> list[dict[str, int]]:
    """The program's answer. Isolated: nothing of this process's Python is on its path."""
    finished = subprocess.run(
        [str(python), "-I", str(_PROGRAM)],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
        timeout=_TIMEOUT_S,
        check=False,
    )
    if finished.returncode != 0:
        raise RuntimeError(f"AutoRound ended with {finished.returncode}:\n{last_lines(finished.stderr)}")
    found: list[dict[str, int]] = json.loads(finished.stdout.splitlines()[-1])
    return found


def _read(
    layers: Sequence[WeightGroup], tensors: Mapping[str, Floats], formats: Mapping[str, Format]
) -> Rounded:
    size, counts = 0, dict.fromkeys(formats.values(), 0)
    for name, matrix in tensors.items():
        _require_levels(name, matrix, formats[name])
        rows, columns = matrix.shape
        size += group_bytes(rows, columns, formats[name])
        counts[formats[name]] += 1
    values = {group.name: np.concatenate([tensors[name] for name in _modules(group)]) for group in layers}
    return Rounded(values, size, counts)


def _require_levels(name: str, matrix: Floats, format_: Format) -> None:
    """ValueError unless every block has no more values than the format has codes."""
    blocks = np.sort(filled_blocks(matrix, format_.block_of(matrix.shape[1])), axis=-1)
    most = int((np.diff(blocks, axis=-1) > 0).sum(-1).max()) + 1
    if most > 1 << format_.bits:
        raise ValueError(f"{name}: a block has {most} values; {format_} has {1 << format_.bits}")
