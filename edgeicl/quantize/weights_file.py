"""`weights.safetensors`: a student's groups as they are stored, and all its other parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from edgeicl.models.anatomy import EMBEDDING, LABEL_HEAD
from edgeicl.quantize.stored_weights import Stored, announced, tensors_of
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.quantize.tensors_file import Announced, TensorsFile
from edgeicl.specs.quant_plan import Format


def write_weights(
    path: Path,
    weights: StudentWeights,
    stored: Iterable[tuple[str, Stored]],
    plan: Mapping[str, Format],
    *,
    head_tokens: Sequence[int] | None,
) -> None:
    """Writes the groups, `stored` by the `plan`, one at a time; see `quantize` for the names.

    `head_tokens`: those whose rows of the table are the head, as they are in `weights`.
    """
    unchanged = dict(weights.others) | {f"{name}.bias": bias for name, bias in weights.biases.items()}
    if head_tokens is not None:
        unchanged[LABEL_HEAD] = weights.matrices[EMBEDDING][list(head_tokens)]
    tensors: dict[str, Announced] = {name: ("F32", values.shape) for name, values in unchanged.items()}
    for group in weights.groups:
        tensors |= announced(group, plan[group.name])
    with TensorsFile(path, tensors) as file:
        for name, values in unchanged.items():
            file.write(name, values)
        for name, matrix in stored:
            for tensor, values in tensors_of(name, matrix).items():
                file.write(tensor, values)
