"""From quantized weights to `model.onnx` and `model.onnx.data`, byte for byte the same for the same input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeicl.emit.data_file import DataFile
from edgeicl.emit.opt import build_opt
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.specs.manifest import MODEL_FILE, WEIGHTS_FILE, LedgerEntry


def write_model(folder: Path, config: Mapping[str, Any], weights: QuantizedWeights) -> list[LedgerEntry]:
    """Writes graph and weights into `folder`; a ledger row for each tensor and one for the graph.

    Raises:
        DataError: a configuration that there is no graph for, or weights that don't go with it. The graph is
            built before anything is written.
    """
    data = DataFile(WEIGHTS_FILE)
    graph = build_opt(config, weights, data)
    stored, ledger = data.write(folder)
    (folder / MODEL_FILE).write_bytes(graph.model(stored).SerializeToString(deterministic=True))
    return [file_entry(folder, MODEL_FILE, "graph"), *ledger]


def file_entry(folder: Path, file: str, name: str | None = None) -> LedgerEntry:
    """A ledger row for a whole file."""
    return LedgerEntry(name=name or file, file=file, bytes=(folder / file).stat().st_size)
