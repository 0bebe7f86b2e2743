"""The student's weights as its groups: matrices stacked by rows, everything in fp32.

Matrices of a small student (`Checkpoint.is_held`) are read once and stay in memory. Those of a larger one are
read from its files whenever they are asked for, so that no more than a group's is there at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeicl.errors import DataError
from edgeicl.models.anatomy import EMBEDDING, Anatomy, WeightGroup
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.checkpoint import TIED_HEAD, Checkpoint
from edgeicl.models.model_folder import model_config, weight_files
from edgeicl.models.threads import fit_threads
from edgeicl.numerics.affine import QuantizedMatrix
from edgeicl.quantize.last_used import LastUsed
from edgeicl.quantize.made_on_use import MadeOnUse

Floats = NDArray[np.float32]

_KEPT_BYTES_PER_WEIGHT = 3  # of rounded matrices: two formats of every group, with room for scales


@dataclass(frozen=True, eq=False)
class StudentWeights:
    """A model taken apart.

    Args:
        anatomy: Of the model; its groups are in the order of computation.
        matrices: Group name -> float32 [N, K].
        biases: Group name -> float32 [N], for groups that have biases.
        others: Every other parameter by its name, float32.
    """

    anatomy: Anatomy
    matrices: Mapping[str, Floats]
    biases: Mapping[str, Floats]
    others: Mapping[str, Floats]

    @property
    def groups(self) -> tuple[WeightGroup, ...]:
        """The weight groups, in the order of computation."""
        return self.anatomy.groups

    @property
    def streamed(self) -> bool:
        """Whether matrices are made anew whenever they are asked for."""
        return isinstance(self.matrices, MadeOnUse)

    @cached_property
    def rounded(self) -> LastUsed[QuantizedMatrix]:
        """What was made of groups; nothing of it is kept of a student that is streamed."""
        weights = sum(rows * columns for rows, columns in (group.shape for group in self.groups))
        most = 0 if self.streamed else _KEPT_BYTES_PER_WEIGHT * weights
        return LastUsed(most, bytes_of=lambda matrix: matrix.nbytes)


def read_weights(folder: Path) -> StudentWeights:
    """The weights in `folder` (config.json, model.safetensors).

    Parameters may be named as the model with its head or the one without it names them (OPT: `model.decoder.`,
    `decoder.`); a tied head may be stored or left out.

    Raises:
        DataError: parameters that are missing, of another shape or not finite, all named; or a head that
            isn't the embedding.
    """
    anatomy = anatomy_of(model_config(folder))
    groups = anatomy.groups
    if not weight_files(folder):
        raise DataError(f"{folder} has no model.safetensors")
    checkpoint = Checkpoint(folder, anatomy.prefix)
    _require_sound(checkpoint, anatomy)
    fit_threads(anatomy.parameters)

    def values(name: str) -> Floats:
        found: Floats = checkpoint.read(name).float().numpy()
        return found

    def stacked(parts: list[Floats]) -> Floats:
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def matrix(name: str) -> Floats:
        group = by_name[name]
        parts = [values(name) for name in group.weights]
        # safetensors writes memory as it lies, so rows must lie one after the other
        return np.ascontiguousarray(stacked([part.T for part in parts] if group.transposed else parts))

    by_name = {group.name: group for group in groups}
    matrices: Mapping[str, Floats] = MadeOnUse(by_name, matrix)
    if checkpoint.is_held:
        matrices = {name: matrix(name) for name in by_name}
    return StudentWeights(
        anatomy=anatomy,
        matrices=matrices,
        biases={g.name: stacked([values(name) for name in g.biases]).copy() for g in groups if g.biases},
        others={name: values(name).copy() for name in anatomy.others},
    )


def _require_sound(checkpoint: Checkpoint, anatomy: Anatomy) -> None:
    """DataError, naming all that is wrong; every parameter is read once."""
    folder = checkpoint.folder
    shapes: dict[str, tuple[int, ...]] = dict(anatomy.others)
    for group in anatomy.groups:
        shapes |= group.parameter_shapes
    wrong = []
    for name, shape in shapes.items():
        found = checkpoint.shape(name)
        if found is None:
            wrong.append(f"{name} is missing")
        elif found != shape:
            wrong.append(f"{name} has shape {found}, expected {shape}")
        elif not checkpoint.read(name).isfinite().all():
            wrong.append(f"{name} holds NaN or infinity")
    if wrong:
        raise DataError(
            f"{folder}: the weights don't match config.json: {'; '.join(wrong)}",
            next_step="check that config.json and model.safetensors belong together",
        )
    if anatomy.tied and checkpoint.shape(TIED_HEAD) is not None:
        table = checkpoint.read(anatomy.group(EMBEDDING).weights[0])
        if not checkpoint.read(TIED_HEAD).equal(table):
            raise DataError(
                f"{folder}: {TIED_HEAD} differs from the token embedding; but config.json ties them",
                next_step="check that config.json and model.safetensors belong together",
            )
