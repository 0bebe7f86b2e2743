"""The student's weights as its groups: matrices stacked by rows, everything in fp32."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeicl.errors import DataError
from edgeicl.models.anatomy import DECODER, WeightGroup, opt_config, other_parameters, weight_groups

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class StudentWeights:
    """A model taken apart.

    Args:
        config: config.json with its defaults filled in.
        groups: The weight groups, in the order of computation.
        matrices: Group name -> float32 [N, K].
        biases: Group name -> float32 [N], for groups that have biases.
        others: Every other parameter by its name, float32.
    """

    config: Mapping[str, Any]
    groups: tuple[WeightGroup, ...]
    matrices: dict[str, Floats]
    biases: dict[str, Floats]
    others: dict[str, Floats]


def read_config(folder: Path) -> dict[str, Any]:
    """The checked configuration of the model in `folder`, defaults filled in."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} can't be read as JSON: {error}") from error
    return opt_config(config)


def read_weights(folder: Path) -> StudentWeights:
    """The weights in `folder` (config.json, model.safetensors).

    Parameters may be named as `OPTForCausalLM`, `OPTModel` or the first OPT checkpoints name them
    (`model.decoder.`, `decoder.`); a tied head may be stored or left out.

    Raises:
        DataError: parameters that are missing, of another shape or not finite, all named; or a head that
            isn't the embedding.
    """
    config = read_config(folder)
    groups = weight_groups(config)
    found = _read_safetensors(folder)
    shapes: dict[str, tuple[int, ...]] = dict(other_parameters(config))
    for group in groups:
        rows = group.shape[0] // len(group.weights)
        shapes |= dict.fromkeys(group.weights, (rows, group.shape[1]))
        shapes |= dict.fromkeys(group.biases, (rows,))
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
    head = found.get("lm_head.weight")
    if head is not None and not np.array_equal(head, found[f"{DECODER}.embed_tokens.weight"]):
        raise DataError(
            f"{folder}: lm_head.weight differs from the token embedding; expected a tied head",
            next_step="use a model whose head is tied to its embedding",
        )

    def stacked(names: tuple[str, ...]) -> Floats:
        return found[names[0]] if len(names) == 1 else np.concatenate([found[name] for name in names])

    return StudentWeights(
        config=config,
        groups=groups,
        matrices={group.name: stacked(group.weights) for group in groups},
        biases={group.name: stacked(group.biases) for group in groups if group.biases},
        others={name: found[name] for name in other_parameters(config)},
    )


def _read_safetensors(folder: Path) -> dict[str, Floats]:
    from safetensors import SafetensorError, safe_open

    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise DataError(f"{folder} has no model.safetensors")
    found: dict[str, Floats] = {}
    for path in files:
        try:
            with safe_open(path, framework="pt") as tensors:  # not "numpy", which knows no bfloat16
                for name in tensors.keys():  # noqa: SIM118 - a file handle, not a dict
                    found[_canonical(name)] = tensors.get_tensor(name).float().numpy()
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path} can't be read: {error}") from error
    return found


def _canonical(name: str) -> str:
    return f"model.{name}" if name.startswith("decoder.") else name
