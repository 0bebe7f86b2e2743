"""The graph computes what transformers' OPT computes, and the check that says so rejects what it should."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from edgeicl.emit.lowering import write_model
from edgeicl.emit.parity import EXACT_TOLERANCE, ParityCase, check_parity, parity_cases
from edgeicl.emit.reference import all_logits, reference_model
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.errors import DataError, ParityError
from edgeicl.models.model_folder import model_config
from edgeicl.specs.manifest import ParityCheck
from edgeicl.specs.quant_plan import Format
from tests.unit.emit.tiny_opt import Tiny

FORMATS = [
    Format(bits=2, block_size=32),
    Format(bits=2, block_size=16, symmetric=False),
    Format(bits=4, block_size=16, symmetric=False),
    Format(bits=4, block_size=64),
    Format(bits=8, block_size=32),
    Format(bits=8, block_size=32, symmetric=False),
    Format(bits=16),
    Format(bits=32),
]
INT8 = Format(bits=8, block_size=32)
INT4 = Format(bits=4, block_size=16, symmetric=False)


def run_check(
    artifact_weights: Path, reference_weights: Path, student: Path, folder: Path
) -> list[ParityCheck]:
    """Parity of an artifact made from one folder of weights with a reference made from another."""
    config = model_config(student)
    write_model(folder, config, QuantizedWeights(artifact_weights))
    reference = all_logits(reference_model(config, QuantizedWeights(reference_weights)))
    cases = parity_cases(config["vocab_size"], 64, seed=0)
    return list(check_parity(folder / "model.onnx", reference, cases, threads=1, scratch=folder))


@pytest.mark.parametrize("format_", FORMATS, ids=str)
def test_every_format_agrees_with_transformers(
    format_: Format, quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    tiny = quantize(format_)
    checks = run_check(tiny.quantized, tiny.quantized, tiny.student, tmp_path)
    assert [check.name for check in checks] == [
        f"{level}, {case}, {part}"
        for case in ("single prompt", "padded batch")
        for level in ("exact", "shipped")
        for part in ("prefill", "decode")
    ]
    for check in checks:
        assert check.reference_scale > 1.0
        if check.name.startswith("exact"):
            assert check.max_abs_difference <= EXACT_TOLERANCE * check.reference_scale
    assert not (tmp_path / "exact.onnx").exists()


def _scale_off_by_a_thousandth(tensors: dict[str, np.ndarray]) -> None:
    tensors["layers.1.mlp.up.scales"] = tensors["layers.1.mlp.up.scales"] * np.float32(1.001)


def _one_scale_off(tensors: dict[str, np.ndarray]) -> None:
    scales = tensors["layers.0.attention.output.scales"].copy()
    scales[3, 1] *= np.float32(1.05)
    tensors["layers.0.attention.output.scales"] = scales


def _query_and_key_swapped(tensors: dict[str, np.ndarray]) -> None:
    for part in ("codes", "scales", "bias"):
        rows = tensors[f"layers.0.attention.qkv.{part}"]
        query, key, value = np.split(rows, 3)
        tensors[f"layers.0.attention.qkv.{part}"] = np.concatenate([key, query, value])


def _positions_off_by_one(tensors: dict[str, np.ndarray]) -> None:
    name = "model.decoder.embed_positions.weight"
    tensors[name] = np.roll(tensors[name], 1, axis=0)


def _block_shifted(tensors: dict[str, np.ndarray]) -> None:
    codes = tensors["layers.1.mlp.down.codes"].copy()
    codes[5, :32] = np.roll(codes[5, :32], 1)
    tensors["layers.1.mlp.down.codes"] = codes


def _one_step_off(tensors: dict[str, np.ndarray]) -> None:
    codes = tensors["embedding.codes"].copy()
    codes[:, 7] = np.where(codes[:, 7] > 0, codes[:, 7] - 1, codes[:, 7] + 1)
    tensors["embedding.codes"] = codes


def _norms_swapped(tensors: dict[str, np.ndarray]) -> None:
    at = "model.decoder.layers.0"
    first, second = f"{at}.self_attn_layer_norm.weight", f"{at}.final_layer_norm.weight"
    tensors[first], tensors[second] = tensors[second], tensors[first]


@pytest.mark.parametrize(
    "spoil",
    [
        _scale_off_by_a_thousandth,
        _one_scale_off,
        _query_and_key_swapped,
        _positions_off_by_one,
        _block_shifted,
        _one_step_off,
        _norms_swapped,
    ],
)
def test_a_wrong_artifact_is_rejected(
    spoil: Callable[[dict[str, np.ndarray]], None], quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    tiny = quantize(INT8)
    spoiled = tmp_path / "spoiled"
    spoiled.mkdir()
    tensors = load_file(tiny.quantized / "weights.safetensors")
    spoil(tensors)
    save_file(
        {name: np.ascontiguousarray(value) for name, value in tensors.items()}, spoiled / "weights.safetensors"
    )
    shutil.copy(tiny.quantized / "plan.json", spoiled / "plan.json")
    with pytest.raises(ParityError, match=r"exact, single prompt, prefill: logits differ by"):
        run_check(spoiled, tiny.quantized, tiny.student, tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: 2 * x,
        lambda x: np.zeros_like(x),
        lambda x: x[..., ::-1],
        lambda x: x * np.float32(1.0001),
        lambda x: x * np.nan,
    ],
)
def test_wrong_logits_are_rejected(
    wrong: Callable[[np.ndarray], np.ndarray], quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    tiny = quantize(INT8)
    config = model_config(tiny.student)
    write_model(tmp_path, config, QuantizedWeights(tiny.quantized))
    right = all_logits(reference_model(config, QuantizedWeights(tiny.quantized)))
    case = (ParityCase("single prompt", (tuple(range(5, 17)),), decoded_tokens=4),)
    with pytest.raises(ParityError, match="doesn't compute what the reference model does"):
        check_parity(
            tmp_path / "model.onnx",
            lambda ids, mask, _: wrong(right(ids, mask)),
            case,
            threads=1,
            scratch=tmp_path,
        )


@pytest.mark.parametrize("context_tokens", [2, 3, 4, 8, 48])
def test_cases_fit_any_context(context_tokens: int) -> None:
    for case in parity_cases(100, context_tokens, seed=0):
        assert all(case.decoded_tokens < len(row) <= context_tokens for row in case.rows)
        _, mask = case.padded(without=case.decoded_tokens)
        assert mask.sum(axis=1).min() >= 1


def _attention_scale_off(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        if attribute.name == "scale":
            attribute.f *= 1.01


def _relu_left_out(node: onnx.NodeProto) -> None:
    if node.op_type == "Relu":
        node.op_type = "Identity"


def _padding_counted_as_past(node: onnx.NodeProto) -> None:
    if node.output[0] == "past_tokens":
        node.op_type = "Identity"
        del node.input[1]


@pytest.mark.parametrize("spoil", [_attention_scale_off, _relu_left_out, _padding_counted_as_past])
def test_a_wrong_graph_is_rejected(
    spoil: Callable[[onnx.NodeProto], None], quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    tiny = quantize(INT4)
    config = model_config(tiny.student)
    write_model(tmp_path, config, QuantizedWeights(tiny.quantized))
    model = onnx.load(tmp_path / "model.onnx", load_external_data=False)
    before = model.SerializeToString()
    for node in model.graph.node:
        spoil(node)
    assert model.SerializeToString() != before
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    reference = all_logits(reference_model(config, QuantizedWeights(tiny.quantized)))
    cases = parity_cases(config["vocab_size"], 64, seed=0)
    with pytest.raises(ParityError, match="exact, padded batch"):
        check_parity(tmp_path / "model.onnx", reference, cases, threads=1, scratch=tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("activation_function", "gelu"),
        ("tie_word_embeddings", False),
        ("model_type", "bloom"),
    ],
)
def test_unsupported_models_are_refused_before_anything_is_written(
    key: str, value: object, quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    tiny = quantize(INT8)
    config = {**model_config(tiny.student), key: value}
    with pytest.raises(DataError, match=str(value)):
        write_model(tmp_path, config, QuantizedWeights(tiny.quantized))
    assert not any(tmp_path.iterdir())


def test_a_missing_tensor_is_named(quantize: Callable[[Format], Tiny], tmp_path: Path) -> None:
    tiny = quantize(INT8)
    tensors = load_file(tiny.quantized / "weights.safetensors")
    del tensors["layers.1.mlp.up.scales"]
    save_file(tensors, tmp_path / "weights.safetensors")
    shutil.copy(tiny.quantized / "plan.json", tmp_path)
    with pytest.raises(DataError, match=r"no tensor 'layers\.1\.mlp\.up\.scales'"):
        write_model(tmp_path, model_config(tiny.student), QuantizedWeights(tmp_path))
