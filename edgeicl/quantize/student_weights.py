"""The student's weights as its groups: matrices stacked by rows, everything in fp32."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeicl.errors import DataError
from edgeicl.models.anatomy import EMBEDDING, Anatomy, WeightGroup
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.model_folder import model_config

Floats = NDArray[np.float32]


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
    matrices: dict[str, Floats]
    biases: dict[str, Floats]
    others: dict[str, Floats]

    @property
    def groups(self) -> tuple[WeightGroup, ...]:
        """The weight groups, in the order of computation."""
        return self.anatomy.groups


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
    found = _read_safetensors(folder, anatomy.prefix)
    shapes: dict[str, tuple[int, ...]] = dict(anatomy.others)
    for group in groups:
        shapes |= group.parameter_shapes
    wrong = []
    for name, shape in shapes.items():
        if name not in found:
            wrong.append(f"{name} is missing")
        elif found[name].shape != shape:
            wrong.append(f"{name} has shape {found[name].shape}, expected {shape}")
        elif not np.isfinite(found[name]).all():
            wrong.append(f"{name} holds NaN or infinity")
    if wrong:
        raise DataError(
            f"{folder}: the weights don't match config.json: {'; '.join(wrong)}",
            next_step="check that config.json and model.safetensors belong together",
        )
    head = found.get("lm_head.weight") if anatomy.tied else None
    (table,) = (group.weights[0] for group in groups if group.name == EMBEDDING)
    if head is not None and not np.array_equal(head, found[table]):
        raise DataError(
            f"{folder}: lm_head.weight differs from the token embedding; but config.json ties them",
            next_step="check that config.json and model.safetensors belong together",
        )

    def stacked(names: tuple[str, ...]) -> Floats:
        return found[names[0]] if len(names) == 1 else np.concatenate([found[name] for name in names])

    def matrix(group: WeightGroup) -> Floats:
        if group.transposed:
            found.update({name: found[name].T for name in group.weights})
        # safetensors writes memory as it lies, so rows must lie one after the other
        return np.ascontiguousarray(stacked(group.weights))

    return StudentWeights(
        anatomy=anatomy,
        matrices={group.name: matrix(group) for group in groups},
        biases={group.name: stacked(group.biases) for group in groups if group.biases},
        others={name: found[name] for name in anatomy.others},
    )


def _read_safetensors(folder: Path, prefix: str) -> dict[str, Floats]:
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise DataError(f"{folder} has no model.safetensors")
    found: dict[str, Floats] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as tensors:  # not "numpy", which knows no bfloat16
                for name in tensors.keys():  # noqa: SIM118 - a file handle, not a dict
                    found[_canonical(name, prefix)] = tensors.get_tensor(name).float().numpy()
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path} can't be read: {error}") from error
    return found


def _canonical(name: str, prefix: str) -> str:
    return name if name.startswith((prefix, "lm_head.")) else f"{prefix}{name}"
