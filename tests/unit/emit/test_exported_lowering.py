"""A graph as Optimum writes it, small enough to follow: its matrices replaced, everything else as it was."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from edgeicl.emit.exported.lowering import takes_positions, write_exported
from edgeicl.emit.graph_variants import with_exact_activations
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.errors import DataError
from edgeicl.models.anatomy import EMBEDDING, Anatomy
from edgeicl.numerics.affine import dequantize, round_to_nearest
from edgeicl.numerics.size import group_bytes
from edgeicl.specs.manifest import WEIGHTS_FILE
from edgeicl.specs.quant_plan import Format, GroupPlan, QuantPlan

Floats = NDArray[np.float32]
FORMATS = [Format(bits=4, block_size=16), Format(bits=8, block_size=32, symmetric=False), Format(bits=16)]
VOCABULARY, WIDTH, INNER = 48, 32, 64
ANATOMY = cast(Anatomy, SimpleNamespace(model_type="made-up"))


def made_up() -> tuple[dict[str, Floats], dict[str, Floats]]:
    """The matrices [N, K] of the groups, and biases."""
    random = np.random.default_rng(0)
    shapes = {"up": (INNER, WIDTH), "down": (WIDTH, INNER), EMBEDDING: (VOCABULARY, WIDTH)}
    matrices = {name: random.standard_normal(shape, np.float32) * 0.3 for name, shape in shapes.items()}
    biases = {"up": random.standard_normal(INNER, np.float32), "down": np.zeros(WIDTH, np.float32)}
    biases["norm"] = random.standard_normal(200, np.float32)
    return matrices, biases


def export(folder: Path, matrices: Mapping[str, Floats], biases: Mapping[str, Floats]) -> Path:
    """logits = E (x + relu(x U' + u) D' + d), x = E[ids]: U as MatMul has it, D as Gemm with transB."""
    node, stored = helper.make_node, numpy_helper.from_array
    nodes = [
        node("Transpose", ["table"], ["columns"], perm=[1, 0]),
        node("Gather", ["table", "input_ids"], ["x"]),
        node("MatMul", ["x", "onnx::MatMul_9"], ["up_product"]),
        node("Add", ["u", "up_product"], ["up"]),
        node("Relu", ["up"], ["inner"]),
        node("Reshape", ["inner", "flat"], ["rows"]),
        node("Gemm", ["rows", "down.weight", "d"], ["down"], transB=1),
        node("Reshape", ["down", "back"], ["delta"]),
        node("Add", ["x", "delta"], ["sum"]),
        node("MatMul", ["sum", "columns"], ["logits"]),
    ]
    initializers = [
        stored(matrices[EMBEDDING], "table"),
        stored(np.ascontiguousarray(matrices["up"].T), "onnx::MatMul_9"),
        stored(matrices["down"], "down.weight"),
        stored(biases["up"], "u"),
        stored(biases["down"], "d"),
        stored(biases["norm"], "never_read"),
        stored(np.array([-1, INNER]), "flat"),
        stored(np.array([1, -1, WIDTH]), "back"),
    ]
    graph = helper.make_graph(
        nodes,
        "exported",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "T"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, "T", VOCABULARY])],
        initializers,
    )
    folder.mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    return folder


def quantized(folder: Path, matrices: Mapping[str, Floats], format_: Format) -> QuantizedWeights:
    folder.mkdir()
    tensors: dict[str, NDArray[Any]] = {}
    for name, matrix in matrices.items():
        if not format_.quantized:
            tensors[f"{name}.weight"] = matrix.astype(f"float{format_.bits}")
            continue
        stored = round_to_nearest(matrix, format_)
        tensors |= {f"{name}.codes": stored.codes, f"{name}.scales": stored.scales}
        if stored.zero_points is not None:
            tensors[f"{name}.zero_points"] = stored.zero_points
    save_file(tensors, folder / "weights.safetensors")
    plan = QuantPlan(
        model_digest="0" * 64,
        importance="none",
        groups=tuple(GroupPlan(group=name, format=format_) for name in matrices),
        predicted_weight_bytes=0,
        predicted_artifact_bytes=0,
        predicted_resident_bytes=0,
    )
    (folder / "plan.json").write_text(plan.model_dump_json())
    return QuantizedWeights(folder)


def computed(ids: NDArray[np.int64], matrices: Mapping[str, Floats], biases: Mapping[str, Floats]) -> Floats:
    x = matrices[EMBEDDING][ids].astype(np.float64)
    inner = np.maximum(x @ matrices["up"].T + biases["up"], 0)
    return ((x + inner @ matrices["down"].T + biases["down"]) @ matrices[EMBEDDING].T).astype(np.float32)


def run(folder: Path, ids: NDArray[np.int64]) -> Floats:
    path = folder / "exact.onnx"
    path.write_bytes(with_exact_activations((folder / "model.onnx").read_bytes()))
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return cast(Floats, session.run(["logits"], {"input_ids": ids})[0])


@pytest.mark.parametrize("format_", FORMATS, ids=str)
def test_it_computes_what_the_stored_weights_mean(tmp_path: Path, format_: Format) -> None:
    matrices, biases = made_up()
    weights = quantized(tmp_path / "q", matrices, format_)
    output = tmp_path / "artifact"
    output.mkdir()
    ledger = write_exported(output, export(tmp_path / "e", matrices, biases), ANATOMY, weights, {**matrices})
    ids = np.array([[1, 40, 7, 7, 30]])
    meant = {name: weights.dense(name) for name in matrices}
    found, expected = run(output, ids), computed(ids, meant, biases)
    scale = np.abs(expected).max()
    assert np.abs(found - expected).max() < 2e-6 * scale
    # negative control: the unrounded weights, and one row of the table moved, are told apart
    if format_.quantized:
        assert np.abs(found - computed(ids, matrices, biases)).max() > 1e-3 * scale
    moved = {**meant, EMBEDDING: np.roll(meant[EMBEDDING], 1, axis=0)}
    assert np.abs(found - computed(ids, moved, biases)).max() > 0.1 * scale

    by_group = {entry.group: 0 for entry in ledger if entry.group}
    for entry in ledger:
        if entry.group:
            by_group[entry.group] += entry.bytes
    assert by_group == {name: group_bytes(*matrix.shape, format_) for name, matrix in matrices.items()}
    on_disk = {name: (output / name).stat().st_size for name in ("model.onnx", WEIGHTS_FILE)}
    assert sum(entry.bytes for entry in ledger) == sum(on_disk.values())
    assert "never_read" not in {entry.name for entry in ledger}
    assert not takes_positions(output / "model.onnx")


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    matrices, biases = made_up()
    exported, weights = (
        export(tmp_path / "e", matrices, biases),
        quantized(tmp_path / "q", matrices, FORMATS[0]),
    )
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_exported(tmp_path / name, exported, ANATOMY, weights, matrices)
        written.append([(tmp_path / name / file).read_bytes() for file in ("model.onnx", WEIGHTS_FILE)])
    assert written[0] == written[1]


def test_a_matrix_that_the_export_does_not_have_is_named(tmp_path: Path) -> None:
    matrices, biases = made_up()
    other = {**matrices, "down": matrices["down"] + 1e-3}
    exported = export(tmp_path / "e", matrices, biases)
    weights = quantized(tmp_path / "q", other, FORMATS[0])
    with pytest.raises(DataError, match="has no matrix with the values of down"):
        write_exported(tmp_path, exported, ANATOMY, weights, other)


def test_a_matrix_that_is_read_in_another_way_is_named(tmp_path: Path) -> None:
    matrices, biases = made_up()
    exported = export(tmp_path / "e", matrices, biases)
    model = onnx.load(exported / "model.onnx")
    (product,) = (node for node in model.graph.node if "onnx::MatMul_9" in node.input)
    product.op_type = "Einsum"
    product.attribute.append(helper.make_attribute("equation", "btk,kn->btn"))
    onnx.save(model, exported / "model.onnx")
    with pytest.raises(DataError, match="reads up in a way that can't be quantized"):
        write_exported(tmp_path, exported, ANATOMY, quantized(tmp_path / "q", matrices, FORMATS[0]), matrices)


def test_dequantized_values_are_those_of_the_codes() -> None:
    """What `computed` is given: the codes' values, not the student's."""
    matrix = made_up()[0]["up"]
    stored = dequantize(round_to_nearest(matrix, FORMATS[0]))
    assert 0 < np.abs(stored - matrix).max() < np.abs(matrix).max() / 7
