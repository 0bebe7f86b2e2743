"""Attention to prompts with all scores at once: the same logits, by a sink that has no share in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeicl.emit.lowering import write_model
from edgeicl.emit.parity import check_parity
from edgeicl.emit.prompts_apart import reference_of
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.errors import ParityError
from edgeicl.models.model_folder import model_config
from edgeicl.specs.quant_plan import BY_ROW, Format
from tests.unit.emit.context_cases import context_cases
from tests.unit.emit.tiny_opt import Tiny, write_quantized
from tests.unit.tiny_models import VARIANTS, make_model

SINK = 11  # of GroupQueryAttention's inputs


def _made(variant: str, folder: Path, prompt_format: Format | None = None) -> Tiny:
    tiny = Tiny(folder / "student", folder / "quantized")
    for path in (tiny.student, tiny.quantized):
        path.mkdir()
    make_model(tiny.student, variant)
    stored = Format(bits=32) if prompt_format is None else Format(bits=4, block_size=32)
    write_quantized(tiny.student, tiny.quantized, stored, prompt_format, prompt_attention="whole")
    write_model(folder, model_config(tiny.student), QuantizedWeights(tiny.quantized))
    return tiny


def _check(tiny: Tiny, folder: Path) -> None:
    config, weights = model_config(tiny.student), QuantizedWeights(tiny.quantized)
    cases = context_cases(config["vocab_size"])
    reference = reference_of(config, weights)(None)
    check_parity(folder / "model.onnx", reference, cases, threads=1, scratch=folder)


def _sinks(graph: onnx.GraphProto) -> set[str]:
    """What attention has for a sink in each of its nodes."""
    nodes = [node for node in graph.node if node.op_type == "GroupQueryAttention"]
    assert nodes
    return {node.input[SINK] if len(node.input) > SINK else "" for node in nodes}


@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_transformers(variant: str, tmp_path: Path) -> None:
    tiny = _made(variant, tmp_path)
    _check(tiny, tmp_path)
    assert _sinks(onnx.load(tmp_path / "model.onnx", load_external_data=False).graph) == {"no_sink"}


@pytest.mark.parametrize("variant", ["opt", "llama"])
def test_a_sink_that_has_a_share_is_rejected(variant: str, tmp_path: Path) -> None:
    tiny = _made(variant, tmp_path)
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    (sink,) = (tensor for tensor in model.graph.initializer if tensor.name == "no_sink")
    sink.CopyFrom(onnx.numpy_helper.from_array(np.full(sink.dims, -1.0, np.float32), "no_sink"))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ParityError):
        _check(tiny, tmp_path)


@pytest.mark.parametrize("variant", ["opt", "llama"])
def test_beside_a_copy_for_prompts_tokens_are_decoded_as_ever(variant: str, tmp_path: Path) -> None:
    tiny = _made(variant, tmp_path, BY_ROW)
    _check(tiny, tmp_path)
    graph = onnx.load(tmp_path / "model.onnx", load_external_data=False).graph
    branches = {a.g.name: a.g for node in graph.node for a in node.attribute if a.HasField("g")}
    assert {name: _sinks(branch) for name, branch in branches.items()} == {
        "prompt": {"no_sink"},
        "token": {""},
    }
