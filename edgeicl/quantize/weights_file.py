"""`weights.safetensors`: a student's groups as they are stored, and all its other parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeicl.models.anatomy import EMBEDDING, LABEL_HEAD, input_step_name, prompt_tensors
from edgeicl.numerics.affine import round_to_nearest
from edgeicl.quantize.stored_weights import Stored, announced, beside_weights, tensors_of
from edgeicl.quantize.student_weights import Floats, StudentWeights
from edgeicl.quantize.tensors_file import Announced, TensorsFile
from edgeicl.specs.quant_plan import ActivationBits, Format


def write_weights(
    path: Path,
    weights: StudentWeights,
    stored: Iterable[tuple[str, Stored]],
    plan: Mapping[str, Format],
    *,
    head_tokens: Sequence[int] | None,
    cache_scales: Mapping[str, NDArray[Any]],
    input_steps: Mapping[str, float],
    activation_bits: ActivationBits,
    prompt_format: Format | None = None,
    prompt_matrices: Mapping[str, Floats] | None = None,
) -> None:
    """Writes the groups, `stored` by the `plan`, one at a time; see `quantize` for the names.

    Args:
        head_tokens: Those whose rows of the table are the head, as they are in `weights`.
        cache_scales: Tensors of a cache of integers, by name.
        input_steps: Of groups whose inputs an integer product rounds in one step for all tokens.
        activation_bits: Also of what stands beside the weights.
        prompt_format: Of a second copy of the layers' groups, rounded to nearest, to read prompts with.
        prompt_matrices: What the copy is of; the student's own matrices unless given.

    Raises:
        DataError: a number that fp16 can't hold.
    """
    beside = dict(weights.others) | {f"{name}.bias": bias for name, bias in weights.biases.items()}
    unchanged = {name: beside_weights(values, activation_bits) for name, values in beside.items()}
    unchanged |= cache_scales
    if head_tokens is not None:
        unchanged[LABEL_HEAD] = weights.matrices[EMBEDDING][list(head_tokens)]
    unchanged |= {input_step_name(group): np.array([step], np.float32) for group, step in input_steps.items()}
    tensors: dict[str, Announced] = {
        name: (f"F{8 * values.itemsize}", values.shape) for name, values in unchanged.items()
    }
    for group in weights.groups:
        tensors |= announced(group, plan[group.name], activation_bits=activation_bits)
    copies = weights.matrices if prompt_matrices is None else prompt_matrices
    copied = [] if prompt_format is None else [group for group in weights.groups if group.layer is not None]
    for group in copied:
        assert prompt_format is not None
        tensors |= announced(replace(group, name=prompt_tensors(group.name)), prompt_format)
    with TensorsFile(path, tensors) as file:
        for name, values in unchanged.items():
            file.write(name, values)
        for name, matrix in stored:
            for tensor, values in tensors_of(name, matrix, activation_bits=activation_bits).items():
                file.write(tensor, values)
        for group in copied:
            assert prompt_format is not None
            copy = round_to_nearest(copies[group.name], prompt_format)
            for tensor, values in tensors_of(prompt_tensors(group.name), copy).items():
                file.write(tensor, values)
