"""Optimum's graph with the plan's weights in it: its products become MatMulNBits, its lookups blocks of codes.

A weight group is found in the graph by its values, whatever the exporter called them: as they lie in the
checkpoint (`Gather`, `Gemm` with transB, `Transpose`) or transposed (`MatMul`, `Gemm`). All other nodes stay as
they are. Tensors go into the data file, but for small ones and those that aren't of fp32.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgeicl import __version__
from edgeicl.emit.data_file import DataFile
from edgeicl.emit.graph import GraphBuilder
from edgeicl.emit.lowering import file_entry
from edgeicl.emit.opsets import FUSED
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.errors import DataError
from edgeicl.models.anatomy import Anatomy
from edgeicl.specs.manifest import MODEL_FILE, WEIGHTS_FILE, LedgerEntry

Floats = npt.NDArray[np.float32]
_LARGEST_IN_GRAPH = 256
"""Bytes of a tensor that stays in the graph."""


def write_exported(
    folder: Path, exported: Path, anatomy: Anatomy, weights: QuantizedWeights, matrices: Mapping[str, Floats]
) -> list[LedgerEntry]:
    """Writes graph and weights into `folder`; a ledger row for each tensor and one for the graph.

    Args:
        exported: Folder of the export.
        weights: The groups in the formats of the plan.
        matrices: Group -> its values [N, K] in the student that was exported.

    Raises:
        DataError: the export has no such matrix where one can be replaced; names all groups concerned.
    """
    model = onnx.load(str(exported / MODEL_FILE))
    data = DataFile(WEIGHTS_FILE)
    nodes, kept = _Rewriting(model.graph, GraphBuilder(weights, data), matrices).run(data)
    stored, ledger = data.write(folder)
    graph = helper.make_graph(
        nodes, anatomy.model_type, list(model.graph.input), list(model.graph.output), [*kept, *stored]
    )
    opsets = [opset for opset in model.opset_import if opset.domain != FUSED]
    written = helper.make_model(
        graph,
        ir_version=model.ir_version,
        opset_imports=[*opsets, helper.make_opsetid(FUSED, 1)],
        producer_name="edgeicl",
        producer_version=__version__,
    )
    (folder / MODEL_FILE).write_bytes(written.SerializeToString(deterministic=True))
    return [file_entry(folder, MODEL_FILE, "graph"), *ledger]


def takes_positions(model_path: Path) -> bool:
    """Whether the graph has an input `position_ids`."""
    inputs = onnx.load(str(model_path), load_external_data=False).graph.input
    return any(entry.name == "position_ids" for entry in inputs)


class _Rewriting:
    """One pass over the nodes of a graph, in its order."""

    def __init__(self, graph: onnx.GraphProto, builder: GraphBuilder, matrices: Mapping[str, Floats]) -> None:
        self._graph, self._builder = graph, builder
        self._initializers = {tensor.name: tensor for tensor in graph.initializer}
        self._groups = self._found(matrices)
        """Value of the graph -> the groups that it holds, and whether it holds them transposed."""
        self._transposes: dict[str, str] = {}
        self._embedded: set[str] = set()
        self._replaced: set[str] = set()

    def run(self, data: DataFile) -> tuple[list[NodeProto], list[TensorProto]]:
        """The nodes, and the small tensors that stay in the graph; the others are announced to `data`."""
        for node in self._graph.node:
            if node.op_type == "Transpose" and node.input[0] in self._groups:
                self._transposes[node.output[0]] = node.input[0]
        for node in self._graph.node:
            if not self._rewritten(node):
                node.name = node.doc_string = ""  # names are a fifth of the bytes, and nobody reads them
                self._builder.keep(node)
        read = {name for node in self._builder.nodes for name in node.input} & self._transposes.keys()
        otherwise = {self._groups[self._transposes[name]][0] for name in read}
        missing = sorted(({name for name, _ in self._groups.values()} - self._replaced) | otherwise)
        if missing:
            raise DataError(
                f"Optimum's export reads {', '.join(missing)} in a way that can't be quantized",
                next_step="report it with the model's config.json; take a student of another type",
            )
        used = Counter(name for node in self._builder.nodes for name in node.input)
        kept = list(self._builder.constants)
        for name, tensor in self._initializers.items():
            if name in self._groups or not used[name]:
                continue
            values = numpy_helper.to_array(tensor)
            if values.dtype == np.float32 and values.nbytes > _LARGEST_IN_GRAPH:
                data.add(name, values.shape, np.float32, partial(numpy_helper.to_array, tensor))
            else:
                kept.append(numpy_helper.from_array(values, name))
        return self._builder.nodes, kept

    def _rewritten(self, node: NodeProto) -> bool:
        """Whether the node reads a weight group, and so was replaced."""
        if node.output and node.output[0] in self._transposes:
            return True  # its only readers are products, which are replaced
        if node.op_type == "Gather" and node.input[0] in self._groups:
            group, transposed = self._groups[node.input[0]]
            if transposed:
                return False
            self._embed(node, group)
            return True
        if node.op_type == "MatMul" and (found := self._operand(node.input[1])) is not None:
            self._multiply(node.input[0], found, node.output[0])
            return True
        if node.op_type == "Gemm" and node.input[1] in self._groups:
            group, transposed = self._groups[node.input[1]]
            attributes = {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}
            plain = all(attributes.get(key, 1.0) == 1.0 for key in ("alpha", "beta"))
            if not plain or attributes.get("transA", 0) or bool(attributes.get("transB", 0)) == transposed:
                return False
            output = node.output[0]
            self._multiply(node.input[0], group, f"{output}.product" if len(node.input) > 2 else output)
            if len(node.input) > 2:
                self._builder.node("Add", [f"{output}.product", node.input[2]], [output])
            return True
        return False

    def _operand(self, name: str) -> str | None:
        """The group that a product's second operand is, if any."""
        if name in self._transposes:
            return self._groups[self._transposes[name]][0]
        group, transposed = self._groups.get(name, ("", False))
        return group if transposed else None

    def _embed(self, node: NodeProto, group: str) -> None:
        self._builder.embedding(node.input[1], group, node.output[0])
        self._embedded.add(group)
        self._replaced.add(group)

    def _multiply(self, source: str, group: str, output: str) -> None:
        self._replaced.add(group)
        if group in self._embedded:
            self._builder.tied_product(source, group, output)
        else:
            self._builder.linear(source, group, output)

    def _found(self, matrices: Mapping[str, Floats]) -> dict[str, tuple[str, bool]]:
        """Initializer -> the group whose values it has, and whether transposed; equal ones in their order."""
        by_digest: dict[bytes, list[str]] = {}
        for name, matrix in matrices.items():
            by_digest.setdefault(_digest(matrix), []).append(name)
        found = {}
        for name, tensor in self._initializers.items():
            if len(tensor.dims) != 2 or tensor.data_type != TensorProto.FLOAT:
                continue
            values = numpy_helper.to_array(tensor)
            for transposed in (False, True):
                groups = by_digest.get(_digest(values.T if transposed else values), [])
                if groups:
                    found[name] = (groups.pop(0) if len(groups) > 1 else groups[0], transposed)
                    break
        missing = sorted(set(matrices) - {group for group, _ in found.values()})
        if missing:
            raise DataError(
                f"Optimum's export has no matrix with the values of {', '.join(missing)}",
                next_step="report it with the model's config.json; take a student of another type",
            )
        return found


def _digest(matrix: npt.NDArray[Any]) -> bytes:
    shape = str(matrix.shape).encode()
    return hashlib.sha256(shape + np.ascontiguousarray(matrix, dtype=np.float32).tobytes()).digest()
