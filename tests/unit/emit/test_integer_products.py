"""Products in integers: the check of how activations are rounded rejects any other rounding."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from safetensors.numpy import load_file, save_file

from edgeicl.emit.integer_parity import check_integer_products
from edgeicl.emit.integer_product import RECTIFIED_ZERO
from edgeicl.emit.lowering import write_model
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.errors import ParityError
from edgeicl.models.model_folder import model_config
from edgeicl.specs.manifest import ParityCheck
from edgeicl.specs.quant_plan import Format
from tests.unit.emit.tiny_opt import Tiny, write_quantized

ROW = Format(bits=8, block_size="row")
RECTIFIED = {"layers.0.mlp.down", "layers.1.mlp.down"}


def _in_one_step(tiny: Tiny, folder: Path) -> Tiny:
    """The same student, with one step for all tokens where they are alike."""
    folder.mkdir()
    write_quantized(tiny.student, folder, ROW, one_step=True)
    return Tiny(tiny.student, folder)


def _check(tiny: Tiny, folder: Path) -> tuple[ParityCheck, ...]:
    weights = QuantizedWeights(tiny.quantized)
    return check_integer_products(folder / "model.onnx", weights, rectified=RECTIFIED, seed=0)


def _one_scale_for_all_tokens(node: onnx.NodeProto) -> None:
    if node.op_type == "ReduceMax":
        del node.input[1:]


def _seven_bits(node: onnx.NodeProto) -> None:
    if node.op_type == "QuantizeLinear":
        node.input[1] = "two_steps"
    if node.op_type == "MatMulIntegerToFloat":
        node.input[2] = "two_steps"


def _twice_the_step(node: onnx.NodeProto) -> None:
    """Codes of one step, read as codes of another."""
    if node.op_type == "QuantizeLinear" and node.input[1].endswith(".input_step"):
        node.input[1] = "two_steps"


def _no_bias(node: onnx.NodeProto) -> None:
    if node.op_type == "MatMulIntegerToFloat":
        del node.input[5:]


def _no_relu(node: onnx.NodeProto) -> None:
    """Inputs that should go through a ReLU, rounded as others are: the kernel reads codes of 128 as zero."""
    for place in {"QuantizeLinear": [2], "MatMulIntegerToFloat": [4]}.get(node.op_type, []):
        if node.input[place] == RECTIFIED_ZERO:
            node.input[place] = "middle"


def _all_are_rejected(
    tiny: Tiny, folder: Path, fault: Callable[[onnx.NodeProto], None], step: float, products: int = 8
) -> None:
    """Each of so many products once every node has the fault, which may read `two_steps`; none before."""
    model = onnx.load(folder / "model.onnx", load_external_data=False)
    for name, value in {"two_steps": np.float32(step), "middle": np.uint8(128)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    (worst,) = _check(tiny, folder)
    assert worst.max_abs_difference < 1e-6 * worst.reference_scale
    for node in model.graph.node:
        fault(node)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ParityError) as caught:
        _check(tiny, folder)
    assert str(caught.value).count("integer product, layers.") == products


@pytest.mark.parametrize("one_step", [False, True])
def test_what_no_relu_removes_is_rejected(
    one_step: bool, quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    tiny = _in_one_step(quantize(ROW), tmp_path / "in one step") if one_step else quantize(ROW)
    write_model(tmp_path, model_config(tiny.student), QuantizedWeights(tiny.quantized))
    _all_are_rejected(tiny, tmp_path, _no_relu, 1.0, products=2)


def test_a_step_by_what_a_relu_removes_is_rejected(quantize: Callable[[Format], Tiny], tmp_path: Path) -> None:
    """Magnitudes, as of inputs of both signs, before the largest is looked for."""
    tiny = quantize(ROW)
    write_model(tmp_path, model_config(tiny.student), QuantizedWeights(tiny.quantized))
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    nodes = []
    for node in model.graph.node:
        if node.op_type == "ReduceMax" and node.input[0].endswith(".up"):
            output = node.output[0].removesuffix(".largest")
            nodes.append(onnx.helper.make_node("Abs", [node.input[0]], [f"{output}.magnitudes"]))
            node.input[0] = f"{output}.magnitudes"
        nodes.append(node)
    assert len(nodes) == len(model.graph.node) + 2
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ParityError) as caught:
        _check(tiny, tmp_path)
    assert str(caught.value).count("integer product, layers.") == 2


@pytest.mark.parametrize("fault", [_twice_the_step, _no_bias])
def test_another_step_is_rejected(
    fault: Callable[[onnx.NodeProto], None], quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    tiny = _in_one_step(quantize(ROW), tmp_path / "in one step")
    write_model(tmp_path, model_config(tiny.student), QuantizedWeights(tiny.quantized))
    graph = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph
    kinds = [node.op_type for node in graph.node]
    assert (kinds.count("Abs"), kinds.count("Relu"), kinds.count("QuantizeLinear")) == (0, 0, 8)
    _all_are_rejected(tiny, tmp_path, fault, 0.08)


@pytest.mark.parametrize("fault", [_one_scale_for_all_tokens, _seven_bits])
def test_another_rounding_is_rejected(
    fault: Callable[[onnx.NodeProto], None], quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    tiny = quantize(ROW)
    write_model(tmp_path, model_config(tiny.student), QuantizedWeights(tiny.quantized))
    _all_are_rejected(tiny, tmp_path, fault, 2 / 127)


def test_weights_of_another_product_are_rejected(quantize: Callable[[Format], Tiny], tmp_path: Path) -> None:
    tiny = quantize(ROW)
    write_model(tmp_path, model_config(tiny.student), QuantizedWeights(tiny.quantized))
    (worst,) = _check(tiny, tmp_path)
    assert worst.max_abs_difference < 1e-6 * worst.reference_scale
    tensors = load_file(tiny.quantized / "weights.safetensors")
    tensors["layers.1.mlp.up.codes"][5, 7] ^= 1
    (tmp_path / "other").mkdir()
    save_file(tensors, tmp_path / "other" / "weights.safetensors")
    shutil.copy(tiny.quantized / "plan.json", tmp_path / "other")
    with pytest.raises(ParityError, match=r"layers\.1\.mlp\.up") as caught:
        _check(Tiny(tiny.student, tmp_path / "other"), tmp_path)
    assert str(caught.value).count("integer product, layers.") == 1


@pytest.mark.parametrize("one_step", [False, True])
def test_what_stands_beside_a_token_does_not_matter(
    one_step: bool, quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    """A row of a padded batch has the logits that it has alone, to the bit of the integer products."""
    tiny = _in_one_step(quantize(ROW), tmp_path / "in one step") if one_step else quantize(ROW)
    write_model(tmp_path, model_config(tiny.student), QuantizedWeights(tiny.quantized))
    session = ort.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    layers = model_config(tiny.student)["num_hidden_layers"]

    def logits(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        empty = np.zeros((len(ids), 4, 0, 16), np.float32)
        past = {f"past_key_values.{i}.{x}": empty for i in range(layers) for x in ("key", "value")}
        (found,) = session.run(["logits"], {"input_ids": ids, "attention_mask": mask, **past})
        return np.asarray(found)

    ids = np.arange(3, 23).reshape(2, 10)
    mask = np.ones_like(ids)
    mask[0, 4:] = 0
    both = logits(ids, mask)
    alone = logits(ids[:1, :4], mask[:1, :4])
    np.testing.assert_allclose(both[0], alone[0], rtol=0, atol=1e-5 * np.abs(alone).max())
