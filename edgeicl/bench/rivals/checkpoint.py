"""The weights that rivals are built from: the student's, or random ones in its shape."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeicl.errors import DataError
from edgeicl.models.architectures.table import anatomy_of

_SHAPE = (
    "model_type",
    "hidden",
    "widest",
    "layers",
    "heads",
    "kv_heads",
    "head_size",
    "vocabulary",
    "positions",
    "embedding_width",
    "tied",
)
_INITIAL_DEVIATION = 0.02


def require_same_shape(model: Path, config: Mapping[str, Any]) -> None:
    """DataError unless the checkpoint folder `model` has the shape of `config`."""
    if not (model / "config.json").is_file():
        raise DataError(f"{model} is no model folder: found no config.json in it")
    found, expected = anatomy_of(json.loads((model / "config.json").read_text())), anatomy_of(config)
    other = [
        f"{key}: found {getattr(found, key)}, the artifact has {getattr(expected, key)}"
        for key in _SHAPE
        if getattr(found, key) != getattr(expected, key)
    ]
    if other:
        raise DataError(
            f"{model} is a model of another shape, so the ratio would mean nothing:\n  " + "\n  ".join(other),
            next_step="name the checkpoint that the artifact was compiled from, or leave out --model",
        )


def write_random_checkpoint(folder: Path, config: Mapping[str, Any]) -> Path:
    """A checkpoint folder in the shape of `config` with the same random weights every time."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    tensors: dict[str, npt.NDArray[np.float32]] = {}
    anatomy = anatomy_of(config)
    for group in anatomy.groups:
        for name, shape in group.parameter_shapes.items():
            tensors[name] = np.zeros(shape, np.float32) if name in group.biases else _normal(generator, shape)
    for name, shape in anatomy.others.items():
        is_scale = len(shape) == 1 and name.endswith(".weight")
        tensors[name] = np.ones(shape, np.float32) if is_scale else _normal(generator, shape)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    whole = {"architectures": [anatomy.causal_lm], **config}
    (folder / "config.json").write_text(json.dumps(whole, indent=1))
    return folder


def _normal(generator: np.random.Generator, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    return generator.standard_normal(shape, dtype=np.float32) * np.float32(_INITIAL_DEVIATION)
