"""A key/value cache of 8-bit integers: what the runtime keeps, and that checks reject another."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from edgeicl.emit.cache_graph import CACHE_ZERO
from edgeicl.emit.lowering import write_model
from edgeicl.emit.parity import check_parity, parity_cases
from edgeicl.emit.prefix import prefix_rows
from edgeicl.emit.prompts_apart import PromptsApart, reference_of
from edgeicl.emit.reference import all_logits, reference_model
from edgeicl.emit.rounded_cache import LayerScales, RoundedDynamicCache
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.errors import ParityError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.growing_decoder import GrowingDecoder
from edgeicl.models.model_folder import model_config
from edgeicl.models.onnx_decoder import OnnxDecoder
from edgeicl.models.prefix_file import read_prefix
from edgeicl.numerics.cache_rounding import cache_codes, channel_scales, read_back
from edgeicl.numerics.size import cache_scale_bytes
from edgeicl.quantize.budget import weight_budget
from edgeicl.specs.quant_plan import BY_ROW, Format, PromptAttention
from edgeicl.store import StageOutput
from tests.unit.emit.context_cases import context_cases, one_token
from tests.unit.emit.other_numbers import with_halves, with_integer_cache
from tests.unit.emit.test_emit_stage import checks_of, make_recipe, make_target, run
from tests.unit.emit.test_prefix import run as run_behind
from tests.unit.emit.tiny_opt import Tiny, make_student, write_quantized
from tests.unit.tiny_models import VARIANTS, make_model

INT8 = Format(bits=8, block_size=32)


def test_codes_on_paper() -> None:
    scales = channel_scales(np.array([12.7, 0.0], np.float32))
    np.testing.assert_allclose(scales, [0.1, 1.0])
    values = np.array([[0.12, 0.0], [-12.7, 3.4], [99.0, -0.6]], np.float32)
    codes = cache_codes(values, scales)
    assert codes.tolist() == [[1, 0], [-127, 3], [127, -1]]
    np.testing.assert_allclose(read_back(codes, scales)[0], [0.1, 0.0], rtol=1e-6)


def test_the_runtime_keeps_the_codes_that_numpy_makes(
    quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    """Of the first layer, whose keys and values no rounding has touched yet; to one code, where fp32 ends."""
    tiny = quantize(INT8)
    (tmp_path / "plain").mkdir()
    (tmp_path / "integers").mkdir()
    write_model(tmp_path / "plain", model_config(tiny.student), QuantizedWeights(tiny.quantized))
    rounded = with_integer_cache(tiny, tmp_path / "weights")
    weights = QuantizedWeights(rounded.quantized)
    write_model(tmp_path / "integers", model_config(tiny.student), weights)
    tokens = np.random.default_rng(3).integers(0, 300, 20)
    numbers, codes = (prefix_rows(tmp_path / kind, tokens) for kind in ("plain", "integers"))
    found_scales = weights.cache_scales()
    assert found_scales is not None
    for kind, scales in zip(("key", "value"), found_scales[0], strict=True):
        name = f"past_key_values.0.{kind}"
        assert codes[name].dtype == np.int8
        expected = cache_codes(numbers[name], scales[:, None, :])
        assert np.abs(codes[name].astype(int) - expected).max() <= 1
        assert (codes[name] == expected).mean() > 0.999
        assert np.abs(expected.astype(int)).max() > 50  # the scales are of this size


@pytest.mark.parametrize("variant", ["opt", "llama"])
def test_agrees_with_a_reference_that_rounds_and_with_no_other(variant: str, tmp_path: Path) -> None:
    student = make_model(tmp_path, variant)
    (tmp_path / "plain").mkdir()
    write_quantized(student, tmp_path / "plain", INT8)
    tiny = with_integer_cache(Tiny(student, tmp_path / "plain"), tmp_path / "weights")
    config, weights = model_config(student), QuantizedWeights(tiny.quantized)
    ledger = write_model(tmp_path, config, weights)
    entries = [entry for entry in ledger if entry.name.endswith("_scales")]
    heads, size = weights.shape("layers.0.attention.key_scales")
    assert sum(entry.bytes for entry in entries) == cache_scale_bytes(2, heads * size, bits=8)
    model, scales = reference_model(config, weights), weights.cache_scales()
    assert scales is not None

    def check(rounded: list[LayerScales] | None) -> None:
        check_parity(
            tmp_path / "model.onnx",
            all_logits(model, cache_scales=rounded),
            parity_cases(config["vocab_size"], 40, seed=0),
            threads=1,
            scratch=tmp_path,
            cache_bits=8,
        )

    check(scales)
    wrong = {
        "one layer 5 % off": [scales[0], (scales[1][0] * np.float32(1.05), scales[1][1])],
        "keys' for values'": [(values, keys) for keys, values in scales],
        "layers swapped": scales[::-1],
        "not rounded": None,
    }
    for rounded in wrong.values():
        with pytest.raises(ParityError, match=r"exact, .*: logits differ by"):
            check(rounded)


@pytest.mark.parametrize("attention", ["tiled", "whole"])
@pytest.mark.parametrize("copy", [BY_ROW, None])
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_first_prompt_is_rounded_after_attention(
    variant: str, copy: Format | None, attention: PromptAttention, tmp_path: Path
) -> None:
    """Where its speed matters: with a copy of the layers for prompts, or all scores at once."""
    student = make_model(tmp_path, variant)
    (tmp_path / "plain").mkdir()
    write_quantized(student, tmp_path / "plain", INT8, copy, prompt_attention=attention)
    tiny = with_integer_cache(Tiny(student, tmp_path / "plain"), tmp_path / "weights")
    config, weights = model_config(student), QuantizedWeights(tiny.quantized)
    assert weights.plan.rounds_after_prompts == ((copy, attention) != (None, "tiled"))
    write_model(tmp_path, config, weights)
    cases = (*context_cases(config["vocab_size"]), one_token(config["vocab_size"]))
    checks = check_parity(
        tmp_path / "model.onnx",
        reference_of(config, weights)(None),
        cases,
        threads=1,
        scratch=tmp_path,
        cache_bits=8,
    )
    assert len(checks) == 4 * 2 * 2
    # and the graph takes no more than the budget counts
    anatomy = anatomy_of(config)
    budget, _ = weight_budget(make_target(), anatomy, tokenizer_bytes=0, task_bytes=0, cache_bits=8)
    if copy is not None:
        budget = budget.with_prompt_copy(anatomy.layers, 0)
    if weights.plan.rounds_after_prompts:
        budget = budget.with_rounding_after(anatomy.layers, 0)
    configuration = len(json.dumps(dict(anatomy.config), indent=1)) + 2048
    assert (tmp_path / "model.onnx").stat().st_size <= budget.other_file_bytes - configuration


@pytest.mark.parametrize("copy", [BY_ROW, None])
def test_of_a_first_prompt_other_ways_of_rounding_are_rejected(copy: Format | None, tmp_path: Path) -> None:
    student = make_model(tmp_path, "opt")
    (tmp_path / "plain").mkdir()
    write_quantized(student, tmp_path / "plain", INT8, copy, prompt_attention="whole")
    tiny = with_integer_cache(Tiny(student, tmp_path / "plain"), tmp_path / "weights")
    config, weights = model_config(student), QuantizedWeights(tiny.quantized)
    write_model(tmp_path, config, weights)
    model = tmp_path / "model.onnx"
    token_model, scales = reference_model(config, weights), weights.cache_scales()
    prompt_model = reference_model(config, weights, prompts=True)
    cases = parity_cases(config["vocab_size"], 40, seed=0)
    assert scales is not None
    in_attention = PromptsApart(prompt_model, token_model, cache_scales=scales)
    in_attention._empty_cache = lambda *, exact_first: RoundedDynamicCache(scales)  # type: ignore[method-assign]
    with pytest.raises(ParityError, match="exact, single prompt, prefill"):
        check_parity(model, in_attention, cases, threads=1, scratch=tmp_path, cache_bits=8)
    never = PromptsApart(prompt_model, token_model)
    with pytest.raises(ParityError, match="exact, single prompt, decode") as caught:
        check_parity(model, never, cases, threads=1, scratch=tmp_path, cache_bits=8)
    assert "exact, single prompt, prefill" not in str(caught.value)
    proto = onnx.load(model, load_external_data=False)
    graphs = [proto.graph]
    for graph in graphs:
        graphs += [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    rounded = [
        n for graph in graphs for n in graph.node if n.op_type == "QuantizeLinear" and n.input[2] == CACHE_ZERO
    ]
    assert len(rounded) == 2 * config["num_hidden_layers"]
    written = [n for graph in graphs for n in graph.node if n.op_type == "ScatterND"]
    assert len(written) == len(rounded)
    for node in written:  # values where keys should be
        node.input[2] = node.input[2].replace(".key", ".value")
    model.write_bytes(proto.SerializeToString())
    exact = PromptsApart(prompt_model, token_model, cache_scales=scales)
    with pytest.raises(ParityError, match="exact, single prompt, decode") as caught:
        check_parity(model, exact, cases, threads=1, scratch=tmp_path, cache_bits=8)
    assert "exact, single prompt, prefill" not in str(caught.value)


def test_the_stage_publishes_it_and_genai_runs_it(quantize: Callable[[Format], Tiny], tmp_path: Path) -> None:
    tiny = with_integer_cache(quantize(INT8), tmp_path / "weights")
    recipe = make_recipe(tmp_path, limits={"accuracy_drop_points": 100.0})
    output = run(tiny, tmp_path, recipe, make_target())
    kinds = {
        entry.type
        for entry in ort.InferenceSession(output.path / "model.onnx").get_inputs()
        if entry.name.startswith("past_key_values.")
    }
    assert kinds == {"tensor(int8)"}
    assert [entry for entry in checks_of(output).deviations if "same tokens" in entry.asked] == []


@pytest.mark.parametrize("copy", [BY_ROW, None])
def test_the_stage_publishes_what_rounds_after_attention(copy: Format | None, tmp_path: Path) -> None:
    """genai, which has a buffer for past and present, and a cache that grows say the same tokens."""
    plain = Tiny(tmp_path / "student", tmp_path / "plain")
    for folder in (plain.student, plain.quantized):
        folder.mkdir()
    make_student(plain.student)
    write_quantized(plain.student, plain.quantized, INT8, copy, prompt_attention="whole")
    tiny = with_integer_cache(plain, tmp_path / "weights")
    recipe = make_recipe(tmp_path, limits={"accuracy_drop_points": 100.0})
    output = run(tiny, tmp_path, recipe, make_target())
    assert [entry for entry in checks_of(output).deviations if "same tokens" in entry.asked] == []
    found = []
    for engine in (OnnxDecoder, GrowingDecoder):
        decoder = engine(output.path / "model.onnx", threads=1, context_tokens=12)
        found.append([decoder.prefill(np.array([[2, 40, 41, 42]])), *(decoder.decode([t]) for t in (43, 44))])
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("other", [with_integer_cache, with_halves])
def test_a_growing_cache_says_what_a_shared_one_says(
    other: Callable[[Tiny, Path], Tiny], quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    tiny = other(quantize(INT8), tmp_path / "weights")
    write_model(tmp_path, model_config(tiny.student), QuantizedWeights(tiny.quantized))
    found = []
    for engine in (OnnxDecoder, GrowingDecoder):
        decoder = engine(tmp_path / "model.onnx", threads=1, context_tokens=12)
        found.append([decoder.prefill(np.array([[2, 40, 41, 42]])), *(decoder.decode([t]) for t in (43, 44))])
    np.testing.assert_array_equal(*found)


def test_a_prefix_is_kept_as_the_cache_takes_it(quantize: Callable[[Format], Tiny], tmp_path: Path) -> None:
    """A quarter of the bytes of fp32; floating-point rows are not for a cache of integers."""
    tokens = np.array([2, *range(40, 50)])
    tiny = with_integer_cache(quantize(INT8), tmp_path / "weights")
    output: StageOutput = run_behind(tiny, tmp_path, [tokens])
    (rows,), _ = read_prefix(output.path / "prefix.safetensors")
    assert {values.dtype for values in rows.values()} == {np.dtype(np.int8)}
    assert any("behind set 0" in check.name for check in checks_of(output).parity)
    decoder = OnnxDecoder(output.path / "model.onnx", threads=1, context_tokens=20)
    decoder.load_prefix(rows)
    after = decoder.prefill(np.array([[60, 61]]))
    whole = OnnxDecoder(output.path / "model.onnx", threads=1, context_tokens=20)
    expected = whole.prefill(np.array([[*tokens, 60, 61]]))
    np.testing.assert_allclose(after, expected, rtol=0, atol=0.1 * np.abs(expected).max())
    with pytest.raises(ValueError, match="a prefix of float32 for a cache of int8"):
        decoder.load_prefix({name: values.astype(np.float32) for name, values in rows.items()})
    task = json.loads((output.path / "task.json").read_text())
    assert task["prefix"]["tokens"] == [11]
