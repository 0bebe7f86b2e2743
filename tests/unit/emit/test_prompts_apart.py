"""Prompts read with one copy of the layers' weights, tokens decoded with another, in one graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeicl.emit.integer_parity import check_integer_products
from edgeicl.emit.lowering import write_model
from edgeicl.emit.parity import check_parity, parity_cases
from edgeicl.emit.prefix import prefix_rows
from edgeicl.emit.prompts_apart import reference_of
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.errors import ParityError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.model_folder import model_config
from edgeicl.numerics.size import group_bytes
from edgeicl.specs.quant_plan import Format
from tests.unit.emit.context_cases import context_cases, one_token
from tests.unit.emit.tiny_opt import Tiny, write_quantized
from tests.unit.tiny_models import POSITIONS, VARIANTS, make_model

INT4, ROW = Format(bits=4, block_size=32), Format(bits=8, block_size="row")


def _made(variant: str, folder: Path, *, one_step: bool = False) -> Tiny:
    student, quantized = folder / "student", folder / "quantized"
    for path in (student, quantized):
        path.mkdir()
    make_model(student, variant)
    write_quantized(student, quantized, INT4, ROW, one_step=one_step)
    return Tiny(student, quantized)


def _check(tiny: Tiny, folder: Path) -> None:
    config, weights = model_config(tiny.student), QuantizedWeights(tiny.quantized)
    cases = (*context_cases(config["vocab_size"]), one_token(config["vocab_size"]))
    checks = check_parity(
        folder / "model.onnx",
        reference_of(config, weights)(None),
        cases,
        threads=1,
        scratch=folder,
    )
    assert len(checks) == 4 * 2 * 2


@pytest.mark.parametrize("one_step", [False, True])
@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_transformers(variant: str, one_step: bool, tmp_path: Path) -> None:
    tiny = _made(variant, tmp_path, one_step=one_step)
    weights = QuantizedWeights(tiny.quantized)
    anatomy = anatomy_of(model_config(tiny.student))
    groups = [group.name for group in anatomy.groups if group.layer is not None]
    assert any(weights.input_step(group) is not None for group in groups) == one_step
    ledger = write_model(tmp_path, model_config(tiny.student), weights)
    _check(tiny, tmp_path)
    (product,) = check_integer_products(tmp_path / "model.onnx", weights, rectified=anatomy.rectified, seed=0)
    assert product.name.startswith("integer product, prompt.layers.")
    formats = weights.plan.formats()
    stored = sum(group_bytes(*group.shape, formats[group.name]) for group in anatomy.groups)
    again = sum(group_bytes(*group.shape, ROW) for group in anatomy.groups if group.layer is not None)
    data = sum(row.bytes for row in ledger if row.file == "model.onnx.data")
    assert data == stored + again + anatomy.fixed_tensor_bytes
    assert data == (tmp_path / "model.onnx.data").stat().st_size


@pytest.mark.parametrize("variant", ["opt", "llama"])
def test_branches_that_are_swapped_are_rejected(variant: str, tmp_path: Path) -> None:
    tiny = _made(variant, tmp_path)
    write_model(tmp_path, model_config(tiny.student), QuantizedWeights(tiny.quantized))
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    (node,) = (node for node in model.graph.node if node.op_type == "If")
    then, other = (attribute.g for attribute in node.attribute)
    kept = onnx.GraphProto()
    kept.CopyFrom(then)
    then.CopyFrom(other)
    other.CopyFrom(kept)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ParityError, match=r"exact, single prompt, prefill[^$]*exact, single prompt, decode"):
        _check(tiny, tmp_path)


@pytest.mark.parametrize(("kind", "length"), [("tokens", 11), ("vectors", 11), ("tokens", 1)])
def test_agrees_behind_a_prefix(kind: str, length: int, tmp_path: Path) -> None:
    """A single token before the query is read as decoded ones are."""
    tiny = _made("opt", tmp_path)
    config, weights = model_config(tiny.student), QuantizedWeights(tiny.quantized)
    write_model(tmp_path, config, weights)
    random = np.random.default_rng(2)
    before: np.ndarray = random.integers(0, config["vocab_size"], length)
    if kind == "vectors":
        before = random.standard_normal((length, config["hidden_size"]), dtype=np.float32)
    rows = prefix_rows(tmp_path, before)
    cases = parity_cases(config["vocab_size"], POSITIONS - length, seed=0)
    reference = reference_of(config, weights)(before)
    model = tmp_path / "model.onnx"
    check_parity(model, reference, cases, threads=1, scratch=tmp_path, prefix=(rows, rows))
    moved = {name: -values if name.endswith("key") else values for name, values in rows.items()}
    with pytest.raises(ParityError, match="exact, padded batch, prefill"):
        check_parity(model, reference, cases, threads=1, scratch=tmp_path, prefix=(moved, rows))
