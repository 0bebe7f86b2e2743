"""What stands before a query: computed from the quantized weights, checked, counted, and refused when wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeicl.emit.lowering import write_model
from edgeicl.emit.parity import check_parity, parity_cases
from edgeicl.emit.prefix import prefix_rows
from edgeicl.emit.reference import all_logits, last_logits, reference_model
from edgeicl.emit.stage import emit
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.errors import DataError, ParityError
from edgeicl.models.model_folder import model_config
from edgeicl.models.prefix_file import read_prefix
from edgeicl.numerics.size import prefix_file_bytes
from edgeicl.specs.manifest import EmitChecks, TaskFile
from edgeicl.specs.prefix import write_prefix_source
from edgeicl.specs.quant_plan import Format
from edgeicl.store import StageOutput, Store
from tests.unit.emit.test_emit_stage import checks_of, make_recipe, make_target
from tests.unit.emit.tiny_opt import Tiny

INT8, INT4 = Format(bits=8, block_size=32), Format(bits=4, block_size=16, symmetric=False)
TOKENS = np.array([2, *range(40, 50)])
VECTORS = np.random.default_rng(5).normal(size=(7, 64)).astype(np.float32) * np.float32(0.3)


def run(
    tiny: Tiny, folder: Path, sets: list[Any], *, context_tokens: int = 48, **changes: object
) -> StageOutput:
    write_prefix_source(folder / "source.safetensors", sets)
    limits = {"accuracy_drop_points": 100.0}
    target = make_target().model_copy(update={"context_tokens": context_tokens})
    return emit(
        make_recipe(folder, limits=limits, **changes),
        target,
        student=tiny.student,
        quantized=StageOutput(tiny.quantized, "q", False, 0.0),
        store=Store(folder / "store"),
        base_folder=folder,
        prefix=folder / "source.safetensors",
    )


@pytest.mark.parametrize("format_", [Format(bits=32), INT8, INT4], ids=str)
@pytest.mark.parametrize("before", [TOKENS, VECTORS], ids=["tokens", "vectors"])
def test_agrees_with_transformers_behind_what_the_prefix_was_made_from(
    format_: Format, before: np.ndarray, quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    tiny = quantize(format_)
    config = model_config(tiny.student)
    write_model(tmp_path, config, QuantizedWeights(tiny.quantized))
    model = reference_model(config, QuantizedWeights(tiny.quantized))
    cases = parity_cases(config["vocab_size"], 30, seed=0, where=" behind it")
    rows = prefix_rows(tmp_path, before)

    def check(prefix: Any, reference: np.ndarray | None) -> tuple[Any, ...]:
        return check_parity(
            tmp_path / "model.onnx",
            all_logits(model, reference),
            cases,
            threads=1,
            scratch=tmp_path,
            prefix=prefix,
        )

    assert check((rows, rows), before)[0].name == "exact, single prompt behind it, prefill"
    # Heads in another order: other positions would not do, attention doesn't see the order of rows.
    wrong = {name: np.roll(values, 1, axis=0) for name, values in rows.items()}
    off = dict(rows) | {"past_key_values.1.value": rows["past_key_values.1.value"] * np.float32(1.001)}
    for spoiled in ((wrong, rows), (rows, wrong), (off, rows), None):
        with pytest.raises(ParityError):
            check(spoiled, before)
    with pytest.raises(ParityError):
        check((rows, rows), before[::-1].copy())


def test_the_student_reads_what_stands_before_once_or_each_time(quantize: Callable[[Format], Tiny]) -> None:
    tiny = quantize(Format(bits=32))
    model = reference_model(model_config(tiny.student), QuantizedWeights(tiny.quantized))
    ids, mask = np.arange(3, 15).reshape(2, 6), np.array([[1] * 6, [1, 1, 1, 0, 0, 0]])
    for before in (TOKENS, VECTORS):
        whole = all_logits(model, before)(ids, mask)
        cached = last_logits(model, before)
        for _ in range(2):
            np.testing.assert_allclose(cached(ids, mask), whole[[0, 1], [5, 2]], rtol=0, atol=1e-4)
    plain = all_logits(model)(np.concatenate([np.stack([TOKENS] * 2), ids], axis=1), np.ones((2, 17), np.int64))
    np.testing.assert_allclose(all_logits(model, TOKENS)(ids, mask)[0], plain[0, 11:], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("sets", "bits"),
    [([TOKENS, TOKENS[:6], TOKENS[::-1].copy()], 32), ([VECTORS], 32), ([TOKENS, TOKENS[:6]], 16)],
    ids=["tokens", "vectors", "fp16"],
)
def test_an_artifact_with_a_prefix_is_checked_and_counted(
    sets: list[Any], bits: int, quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    output = run(quantize(INT8), tmp_path, sets, emit={"prefix_bits": bits})
    checks = checks_of(output)
    files = {path.name for path in output.path.iterdir()} - {"checks.json", "stage.json"}
    assert "prefix.safetensors" in files
    assert {file: sum(row.bytes for row in checks.ledger if row.file == file) for file in files} == {
        file: (output.path / file).stat().st_size for file in files
    }
    of_tokens = sets[0].ndim == 1
    predicted = prefix_file_bytes(2, 64, [len(values) for values in sets], bits=bits, ids=of_tokens)
    assert 0 <= predicted - (output.path / "prefix.safetensors").stat().st_size < 64 * 5 * len(sets)

    use = TaskFile.model_validate_json((output.path / "task.json").read_bytes()).prefix
    assert use is not None
    assert (use.kind, use.tokens) == (
        "tokens" if of_tokens else "vectors",
        tuple(len(values) for values in sets),
    )
    rows, ids = read_prefix(output.path / "prefix.safetensors")
    for values, tensors, tokens in zip(sets, rows, ids, strict=True):
        exact = prefix_rows(output.path, values)
        assert tensors.keys() == exact.keys()
        for name in exact:
            tolerance = 0 if bits == 32 else 1e-3 * np.abs(exact[name]).max()
            np.testing.assert_allclose(tensors[name], exact[name], rtol=0, atol=tolerance)
        assert (tokens is None) == (not of_tokens)
        if tokens is not None:
            np.testing.assert_array_equal(tokens, values)
    names = {check.name for check in checks.parity}
    for number in range(len(sets)):
        assert f"exact, padded batch behind set {number}, decode" in names
    assert [row.data for row in checks.accuracy] == ["in_domain", "out_of_domain"]
    without = [entry for entry in checks.deviations if entry.where == "prefix.safetensors"]
    assert len(without) == (0 if of_tokens else 1)


def test_another_prefix_is_another_artifact(quantize: Callable[[Format], Tiny], tmp_path: Path) -> None:
    first = run(quantize(INT8), tmp_path, [TOKENS])
    assert run(quantize(INT8), tmp_path, [TOKENS]).reused
    second = run(quantize(INT8), tmp_path, [TOKENS[::-1].copy()])
    assert not second.reused
    assert first.path != second.path
    hashes = [json.loads((output.path / "stage.json").read_text())["files"] for output in (first, second)]
    assert hashes[0]["prefix.safetensors"] != hashes[1]["prefix.safetensors"]
    assert hashes[0]["model.onnx.data"] == hashes[1]["model.onnx.data"]


def test_a_context_too_short_for_prefix_and_query_is_refused(
    quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"found room for 4: .*context_tokens 15.*; 11 tokens stand before it"):
        run(quantize(INT8), tmp_path, [TOKENS], context_tokens=15)


def test_votes_of_the_sets_are_what_is_counted(
    quantize: Callable[[Format], Tiny], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The artifact's accuracy is that of the majority over sets, asked here one query and one set at a time."""
    from edgeicl.models.onnx_decoder import OnnxDecoder
    from edgeicl.tasks.prompt import PromptEncoder

    sets = [TOKENS, TOKENS[:6], TOKENS[::-1].copy()]
    tiny = quantize(INT8)
    output = run(tiny, tmp_path, sets)
    checks: EmitChecks = checks_of(output)
    from edgeicl.models.loading import load_tokenizer

    encoder = PromptEncoder(
        load_tokenizer(tiny.student),
        pattern="{a} answer:",
        verbalizers={"yes": " Yes", "no": " No"},
        separator="",
    )
    answers = [list(tokens) for tokens in encoder.tokens.values()]
    examples = [json.loads(line) for line in (tmp_path / "in.jsonl").read_text().splitlines()]
    right = 0
    decoder = OnnxDecoder(output.path / "model.onnx", threads=1, context_tokens=48)
    rows = read_prefix(output.path / "prefix.safetensors")[0]
    for example in examples:
        query = encoder._encode([f"{example['a']} answer:"])[0]
        chosen = []
        for prefix in rows:
            decoder.load_prefix(prefix)
            scores = []
            for answer in answers:
                total = 0.0
                for count, token in enumerate(answer):
                    logits = decoder.prefill(np.array([[*query, *answer[:count]]]))[0].astype(np.float64)
                    total += logits[token] - np.logaddexp.reduce(logits)
                scores.append(total)
            chosen.append(int(np.argmax(scores)))
        right += ("yes", "no")[int(sum(chosen) >= 2)] == example["label"]
    assert checks.accuracy[0].artifact == pytest.approx(right / len(examples), abs=1.5 / len(examples))
