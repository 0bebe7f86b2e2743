"""Every architecture's graph computes what transformers computes, up to the last position of its context."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeicl.emit.lowering import write_model
from edgeicl.emit.parity import ParityCase, check_parity, parity_cases
from edgeicl.emit.prefix import prefix_rows
from edgeicl.emit.reference import all_logits, last_logits, reference_model
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.errors import ParityError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.loading import load_model
from edgeicl.models.model_folder import model_config
from edgeicl.models.prefix_file import Rows
from edgeicl.numerics.size import group_bytes
from edgeicl.specs.quant_plan import Format
from tests.unit.emit.context_cases import context_cases
from tests.unit.emit.tiny_opt import Tiny, write_quantized
from tests.unit.tiny_models import POSITIONS, VARIANTS, make_model

INT4 = Format(bits=4, block_size=16, symmetric=False)
FORMATS = [
    Format(bits=2, block_size=32),
    INT4,
    Format(bits=8, block_size=32),
    Format(bits=8, block_size="row"),
    Format(bits=16),
    Format(bits=32),
]

Quantized = Callable[[str, Format], Tiny]


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Quantized:
    """A variant with every group in one format."""
    made: dict[tuple[str, Format], Tiny] = {}

    def make(variant: str, format_: Format) -> Tiny:
        if (variant, format_) not in made:
            known = [tiny.student for (name, _), tiny in made.items() if name == variant]
            student = known[0] if known else make_model(tmp_path_factory.mktemp("student"), variant)
            folder = tmp_path_factory.mktemp("quantized")
            write_quantized(student, folder, format_)
            made[variant, format_] = Tiny(student, folder)
        return made[variant, format_]

    return make


def _cases(tiny: Tiny) -> tuple[ParityCase, ...]:
    return context_cases(model_config(tiny.student)["vocab_size"])


@pytest.mark.parametrize("format_", FORMATS, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_transformers(variant: str, format_: Format, quantized: Quantized, tmp_path: Path) -> None:
    tiny = quantized(variant, format_)
    config, weights = model_config(tiny.student), QuantizedWeights(tiny.quantized)
    ledger = write_model(tmp_path, config, weights)
    reference = all_logits(reference_model(config, weights))
    checks = check_parity(tmp_path / "model.onnx", reference, _cases(tiny), threads=1, scratch=tmp_path)
    assert len(checks) == 12
    assert all(check.reference_scale > 0.5 for check in checks)
    anatomy = anatomy_of(config)
    formats = weights.plan.formats()
    stored = sum(group_bytes(*group.shape, formats[group.name]) for group in anatomy.groups)
    data = sum(row.bytes for row in ledger if row.file == "model.onnx.data")
    assert data == stored + anatomy.fixed_tensor_bytes == (tmp_path / "model.onnx.data").stat().st_size
    graph = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph
    used = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= used


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_reference_is_the_student(variant: str, quantized: Quantized) -> None:
    """With fp32 weights: every parameter is where it belongs."""
    tiny = quantized(variant, Format(bits=32))
    reference = reference_model(model_config(tiny.student), QuantizedWeights(tiny.quantized))
    ids = np.arange(3, 15).reshape(2, 6)
    mask = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    found, expected = all_logits(reference)(ids, mask), all_logits(load_model(tiny.student))(ids, mask)
    np.testing.assert_allclose(found[mask == 1], expected[mask == 1], rtol=0, atol=1e-5)
    picked = last_logits(reference)(ids, mask)
    np.testing.assert_allclose(picked, found[[0, 1], [5, 2]], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["tokens", "vectors"])
@pytest.mark.parametrize("variant", ["gpt2", "llama", "opt-350m", "qwen3"])
def test_agrees_behind_a_prefix(variant: str, kind: str, quantized: Quantized, tmp_path: Path) -> None:
    """Up to the last position; without the prefix, or with its keys elsewhere, it doesn't."""
    tiny = quantized(variant, INT4)
    config, weights = model_config(tiny.student), QuantizedWeights(tiny.quantized)
    write_model(tmp_path, config, weights)
    random = np.random.default_rng(2)
    before = random.integers(0, config["vocab_size"], 11)
    if kind == "vectors":
        width = anatomy_of(config).embedding_width
        before = random.standard_normal((11, width), dtype=np.float32)
    rows = prefix_rows(tmp_path, before)
    ids = tuple(int(token) for token in random.integers(0, config["vocab_size"], POSITIONS - 11))
    cases = (ParityCase("behind it", (ids,), 4), *parity_cases(config["vocab_size"], POSITIONS - 11, seed=0))
    reference = all_logits(reference_model(config, weights), before)

    def check(prefix: tuple[Rows, Rows] | None) -> None:
        check_parity(tmp_path / "model.onnx", reference, cases, threads=1, scratch=tmp_path, prefix=prefix)

    check((rows, rows))
    keys_moved = {n: np.roll(values, n.endswith("key"), axis=1) for n, values in rows.items()}
    for wrong in (None, (keys_moved, rows)):
        with pytest.raises(ParityError, match="exact, behind it"):
            check(wrong)


def _changed(node: onnx.NodeProto, **attributes: float | str) -> None:
    for attribute in node.attribute:
        if attribute.name in attributes:
            value = attributes[attribute.name]
            attribute.CopyFrom(onnx.helper.make_attribute(attribute.name, value))


def _positions_not_turned(node: onnx.NodeProto) -> None:
    if node.op_type == "GroupQueryAttention":
        _changed(node, do_rotary=0)
        del node.input[7:]


def _sine_for_cosine(node: onnx.NodeProto) -> None:
    if node.op_type == "Cos":
        node.op_type = "Sin"


def _gate_not_activated(node: onnx.NodeProto) -> None:
    if node.op_type == "QuickGelu":
        _changed(node, alpha=1.702)


def _gate_and_up_swapped(node: onnx.NodeProto) -> None:
    if node.op_type == "Split" and node.output[0].endswith("gate"):
        node.output[:] = reversed(node.output)


def _layer_norm_for_rms_norm(node: onnx.NodeProto) -> None:
    if node.op_type == "SimplifiedLayerNormalization":
        node.op_type = "LayerNormalization"


def _head_norm_left_out(node: onnx.NodeProto) -> None:
    if node.op_type == "SimplifiedLayerNormalization" and node.output[0].endswith("key.norm"):
        node.op_type = "Identity"
        del node.input[1:], node.attribute[:]


def _positions_of_a_first_step(node: onnx.NodeProto) -> None:
    if node.output[0] == "position_rows":
        node.input[1] = "step_offsets"


def _gelu_of_another_form(node: onnx.NodeProto) -> None:
    if node.op_type == "Gelu":
        _changed(node, approximate="none")


def _norms_with_another_epsilon(node: onnx.NodeProto) -> None:
    if node.op_type == "LayerNormalization":
        _changed(node, epsilon=1e-2)


def _residual_left_out(node: onnx.NodeProto) -> None:
    if node.op_type == "Sum" and node.output[0] == "layers.1.mlp.residual":
        del node.input[0]


_OPT_FAULTS = [_positions_of_a_first_step, _norms_with_another_epsilon, _residual_left_out]
_GPT2_FAULTS = [_positions_of_a_first_step, _gelu_of_another_form, _norms_with_another_epsilon]
_LLAMA_FAULTS = [
    _positions_not_turned,
    _sine_for_cosine,
    _gate_not_activated,
    _gate_and_up_swapped,
    _layer_norm_for_rms_norm,
]
FAULTS = [
    *(("opt", fault) for fault in _OPT_FAULTS),
    *(("opt-350m", fault) for fault in _OPT_FAULTS),
    *(("gpt2", fault) for fault in _GPT2_FAULTS),
    *(("llama", fault) for fault in _LLAMA_FAULTS),
    *(("qwen2", fault) for fault in _LLAMA_FAULTS),
    *(("qwen3", fault) for fault in (*_LLAMA_FAULTS, _head_norm_left_out)),
]


@pytest.mark.parametrize(("variant", "fault"), FAULTS)
def test_a_wrong_graph_is_rejected(
    variant: str, fault: Callable[[onnx.NodeProto], None], quantized: Quantized, tmp_path: Path
) -> None:
    tiny = quantized(variant, INT4)
    config, weights = model_config(tiny.student), QuantizedWeights(tiny.quantized)
    write_model(tmp_path, config, weights)
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    before = model.SerializeToString()
    for node in model.graph.node:
        fault(node)
    assert model.SerializeToString() != before
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    reference = all_logits(reference_model(config, weights))
    with pytest.raises(ParityError, match=r"exact, end of the context, (prefill|decode)"):
        check_parity(tmp_path / "model.onnx", reference, _cases(tiny), threads=1, scratch=tmp_path)
