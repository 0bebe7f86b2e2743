"""What is written: every byte counted, the embedding once, the same bytes again for the same input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeicl.emit.data_file import DataFile
from edgeicl.emit.lowering import write_model
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.errors import DataError, IntegrityError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.model_folder import model_config
from edgeicl.numerics.size import group_bytes
from edgeicl.specs.quant_plan import Format
from tests.unit.emit.tiny_opt import Tiny

FORMATS = [
    Format(bits=2, block_size=16, symmetric=False),
    Format(bits=4, block_size=64),
    Format(bits=8, block_size=32, symmetric=False),
    Format(bits=16),
    Format(bits=32),
]


def test_data_file_on_paper(tmp_path: Path) -> None:
    """Wide items first, no padding, aliases take no bytes; an older file of the same name is replaced."""
    (tmp_path / "w").write_bytes(b"old" * 100)
    data = DataFile("w")
    data.add("bytes", (3,), np.uint8, lambda: np.array([1, 2, 3], np.uint8), group="g")
    data.add("floats", (1, 2), np.float32, lambda: np.array([[1.0, -2.0]], np.float32))
    data.add("halves", (1,), np.float16, lambda: np.array([1.5], np.float16))
    data.alias("again", "bytes", (3, 1))
    tensors, ledger = data.write(tmp_path)
    assert (tmp_path / "w").read_bytes() == bytes.fromhex("0000803f 000000c0 003e 010203")
    assert [(entry.name, entry.bytes, entry.group) for entry in ledger] == [
        ("floats", 8, None),
        ("halves", 2, None),
        ("bytes", 3, "g"),
    ]
    places = {
        tensor.name: (list(tensor.dims), {entry.key: entry.value for entry in tensor.external_data})
        for tensor in tensors
    }
    assert places["again"] == ([3, 1], {"location": "w", "offset": "10", "length": "3"})
    assert places["bytes"][1] == places["again"][1]


def test_data_file_refuses_what_is_not_as_announced(tmp_path: Path) -> None:
    data = DataFile("w")
    data.add("a", (2,), np.float32, lambda: np.zeros(3, np.float32))
    with pytest.raises(IntegrityError, match="a is stored twice"):
        data.add("a", (2,), np.float32, lambda: np.zeros(2, np.float32))
    with pytest.raises(IntegrityError, match=r"b \[3\] doesn't cover the bytes of a \[2\]"):
        data.alias("b", "a", (3,))
    with pytest.raises(IntegrityError, match=r"tensor a is float32 \[3\]; expected float32 \[2\]"):
        data.write(tmp_path)


@pytest.mark.parametrize("format_", FORMATS, ids=str)
def test_the_ledger_is_the_folder(format_: Format, quantize: Callable[[Format], Tiny], tmp_path: Path) -> None:
    """To the byte, and the planner's size model says the same of every group."""
    tiny = quantize(format_)
    config = model_config(tiny.student)
    ledger = write_model(tmp_path, config, QuantizedWeights(tiny.quantized))
    for file in ("model.onnx", "model.onnx.data"):
        assert sum(row.bytes for row in ledger if row.file == file) == (tmp_path / file).stat().st_size
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}

    by_group: dict[str | None, int] = {}
    for row in ledger:
        if row.file == "model.onnx.data":
            by_group[row.group] = by_group.get(row.group, 0) + row.bytes
    fixed = by_group.pop(None)
    assert by_group == {group.name: group_bytes(*group.shape, format_) for group in anatomy_of(config).groups}
    assert fixed == anatomy_of(config).fixed_tensor_bytes


@pytest.mark.parametrize("format_", FORMATS, ids=str)
def test_the_embedding_is_stored_once(
    format_: Format, quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    tiny = quantize(format_)
    write_model(tmp_path, model_config(tiny.student), QuantizedWeights(tiny.quantized))
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    producers = {name: node for node in model.graph.node for name in node.output}
    head = producers["logits"]
    while head.op_type not in ("MatMulNBits", "Gemm"):
        head = producers[head.input[0]]
    gather = next(node for node in model.graph.node if "Gather" in node.op_type and "input_ids" in node.input)
    stored = {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for tensor in model.graph.initializer
        if tensor.external_data
    }
    head_weight = head.input[1] if head.input[1] in stored else producers[head.input[1]].input[0]
    assert stored[head_weight] == stored[gather.input[0]]


def test_same_input_same_bytes(quantize: Callable[[Format], Tiny], tmp_path: Path) -> None:
    tiny = quantize(FORMATS[0])
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        write_model(tmp_path / name, model_config(tiny.student), QuantizedWeights(tiny.quantized))
    for file in ("model.onnx", "model.onnx.data"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_a_group_that_the_plan_leaves_out_is_named(quantize: Callable[[Format], Tiny]) -> None:
    weights = QuantizedWeights(quantize(FORMATS[0]).quantized)
    with pytest.raises(
        DataError, match=r"the quant plan has no group 'layers\.7\.mlp\.up'; it has embedding, "
    ):
        weights.format("layers.7.mlp.up")
    with pytest.raises(DataError, match="group embedding is fp32; it has no codes"):
        QuantizedWeights(quantize(Format(bits=32)).quantized).matrix("embedding")
