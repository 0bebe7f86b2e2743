"""From quantized weights to `model.onnx` and `model.onnx.data`, byte for byte the same for the same input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeicl.emit.data_file import DataFile
from edgeicl.emit.decoder_graph import DecoderGraph
from edgeicl.emit.gpt2 import Gpt2Graph
from edgeicl.emit.graph import GraphBuilder
from edgeicl.emit.llama import LlamaGraph
from edgeicl.emit.opt import OptGraph
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.specs.manifest import MODEL_FILE, WEIGHTS_FILE, LedgerEntry

LOWERINGS: Mapping[str, type[DecoderGraph]] = {
    "gpt2": Gpt2Graph,
    "llama": LlamaGraph,
    "opt": OptGraph,
    "qwen2": LlamaGraph,
    "qwen3": LlamaGraph,
}
"""`model_type` -> graph."""


def write_model(folder: Path, config: Mapping[str, Any], weights: QuantizedWeights) -> list[LedgerEntry]:
    """Writes graph and weights into `folder`; a ledger row for each tensor and one for the graph.

    Raises:
        DataError: a configuration that there is no graph for, or weights that don't go with it. The graph is
            built before anything is written.
    """
    anatomy = anatomy_of(config)
    data = DataFile(WEIGHTS_FILE)
    graph = LOWERINGS[anatomy.model_type](anatomy, GraphBuilder(weights, data))
    stored, ledger = data.write(folder)
    (folder / MODEL_FILE).write_bytes(graph.model(stored).SerializeToString(deterministic=True))
    return [file_entry(folder, MODEL_FILE, "graph"), *ledger]


def file_entry(folder: Path, file: str, name: str | None = None) -> LedgerEntry:
    """A ledger row for a whole file."""
    return LedgerEntry(name=name or file, file=file, bytes=(folder / file).stat().st_size)
