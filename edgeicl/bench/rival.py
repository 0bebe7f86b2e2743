"""Builds what a user would run instead: the optimum export of the model, with onnxruntime's dynamic int8.

`optimum-int8` is what the two tools give by themselves: the export ties head and embedding, so the head is no
weight that the quantizer sees, and stays in fp32. `optimum-int8-untied` keeps a copy of the head that is
quantized too: faster, and the best found for this rival (per-channel or unsigned weights gain nothing, and a
quantized embedding is slower in both).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeicl.errors import BenchError, DataError
from edgeicl.models import exporter
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.specs.manifest import MODEL_FILE
from edgeicl.store import Store, folder_hashes

RIVALS = {
    "optimum-int8": "optimum-onnx export (text-generation-with-past), dynamic int8 MatMul weights",
    "optimum-int8-untied": "optimum-onnx export without post-processing, dynamic int8 weights, head included",
}

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


def build_rival(
    rival: str,
    config: Mapping[str, Any],
    *,
    model: Path | None,
    store: Store,
    exporter_python: Path | None = None,
) -> Path:
    """The graph of `rival`: of the checkpoint folder `model`, or of random weights in the shape of `config`.

    Args:
        config: A config.json, used without `model`: speed depends on shapes alone.
        exporter_python: Interpreter that has optimum-onnx; this one unless given.

    Raises:
        BenchError: optimum-onnx is absent, or its export failed.
        DataError: `model` is no checkpoint of the shape of `config`, or the architecture is unsupported.
    """
    if model is not None:
        _require_same_shape(model, config)
    python = exporter_python or exporter.exporter_python()
    versions = exporter_versions(python)
    inputs = {
        "rival": rival,
        "checkpoint": folder_hashes(model) if model else dict(config),
        "exporter": versions,
    }

    def build(folder: Path) -> None:
        work = folder / "checkpoint"
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        checkpoint = model or write_random_checkpoint(work / "random", config)
        export(checkpoint, work / "exported", python=python, untied=rival.endswith("-untied"))
        quantize(work / "exported" / MODEL_FILE, folder / MODEL_FILE)

    return store.run("rival", inputs, build).path / MODEL_FILE


def _require_same_shape(model: Path, config: Mapping[str, Any]) -> None:
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


def exporter_versions(python: Path) -> dict[str, str]:
    """Versions of what exports, in the interpreter `python`. BenchError where optimum-onnx is not there."""
    try:
        return exporter.exporter_versions(python)
    except DataError as error:
        raise BenchError(
            f"{error.args[0]}; the rival can't be built without it", next_step=error.next_step
        ) from error


def export(checkpoint: Path, output: Path, *, python: Path, untied: bool) -> None:
    """As `models.exporter`; BenchError where it fails."""
    try:
        exporter.export(checkpoint, output, python=python, untied=untied)
    except DataError as error:
        raise BenchError(str(error.args[0])) from error


def quantize(graph: Path, output: Path) -> None:
    """onnxruntime's dynamic quantization of the MatMul weights."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        str(graph), str(output), op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8, per_channel=False
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
