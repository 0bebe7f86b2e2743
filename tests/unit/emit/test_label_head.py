"""The head of the labels alone: the same numbers as the whole head's, nothing of the size of the vocabulary."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

from edgeicl.emit.lowering import write_model
from edgeicl.emit.parity import check_parity, parity_cases
from edgeicl.emit.reference import all_logits, reference_model
from edgeicl.emit.usage import usage
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.errors import DataError, ParityError
from edgeicl.models.anatomy import LABEL_HEAD
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.model_folder import model_config
from edgeicl.specs.manifest import ParityCheck, TaskFile
from edgeicl.specs.quant_plan import Format
from tests.unit.emit.test_emit_stage import checks_of, make_recipe, make_target, run
from tests.unit.emit.tiny_opt import Tiny, write_quantized
from tests.unit.tiny_models import VARIANTS, make_model

TOKENS = (80, 7, 33)
FORMATS = [Format(bits=2, block_size=32), Format(bits=4, block_size=16, symmetric=False)]
FORMATS += [Format(bits=8, block_size=32), Format(bits=16), Format(bits=32)]
INT8 = Format(bits=8, block_size=32)


def student_table(tiny: Tiny) -> np.ndarray:
    model = AutoModelForCausalLM.from_pretrained(tiny.student)
    return np.array(model.get_output_embeddings().weight.detach().numpy())


def with_label_head(tiny: Tiny, folder: Path, tokens: tuple[int, ...] = TOKENS) -> Path:
    """The quantized weights with the student's own rows of `tokens` as head."""
    folder.mkdir()
    tensors = load_file(tiny.quantized / "weights.safetensors")
    save_file(tensors | {LABEL_HEAD: student_table(tiny)[list(tokens)]}, folder / "weights.safetensors")
    (folder / "plan.json").write_bytes((tiny.quantized / "plan.json").read_bytes())
    return folder


def checked(tiny: Tiny, weights: Path, folder: Path, *, tokens: tuple[int, ...]) -> tuple[ParityCheck, ...]:
    """Parity of the graph of `weights` with a reference whose rows of `tokens` are the student's own."""
    config = model_config(tiny.student)
    write_model(folder, config, QuantizedWeights(weights))
    table = student_table(tiny)
    rows = {token: table[token] for token in tokens}
    reference = all_logits(reference_model(config, QuantizedWeights(tiny.quantized), label_rows=rows))
    cases = parity_cases(config["vocab_size"], 64, seed=0)
    return check_parity(folder / "model.onnx", reference, cases, threads=1, scratch=folder, head_tokens=tokens)


@pytest.mark.parametrize("format_", FORMATS, ids=str)
def test_every_format_agrees_with_transformers(
    format_: Format, quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    tiny = quantize(format_)
    weights = with_label_head(tiny, tmp_path / "weights")
    checks = checked(tiny, weights, tmp_path, tokens=TOKENS)
    assert len(checks) == 8
    # Beside the largest logit of the whole vocabulary, as a full head's are.
    full = all_logits(reference_model(model_config(tiny.student), QuantizedWeights(tiny.quantized)))
    case = parity_cases(model_config(tiny.student)["vocab_size"], 64, seed=0)[0]
    largest = np.abs(full(*case.padded())[0, -1 - case.decoded_tokens]).max()
    assert checks[0].reference_scale == pytest.approx(largest, rel=0.3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_architecture_with_a_tied_head_agrees_with_transformers(variant: str, tmp_path: Path) -> None:
    student = make_model(tmp_path, variant)
    if not anatomy_of(model_config(student)).tied:
        pytest.skip("its head is no table that tokens are looked up in: refused, see the quantize stage")
    (tmp_path / "quantized").mkdir()
    write_quantized(student, tmp_path / "quantized", INT8)
    tiny = Tiny(student, tmp_path / "quantized")
    weights = with_label_head(tiny, tmp_path / "weights")
    checked(tiny, weights, tmp_path, tokens=TOKENS)
    with pytest.raises(ParityError):
        checked(tiny, weights, tmp_path, tokens=TOKENS[::-1])


def test_swapped_or_quantized_rows_are_found(quantize: Callable[[Format], Tiny], tmp_path: Path) -> None:
    """Negative controls: columns in another order, and rows that are those of the quantized table."""
    tiny = quantize(INT8)
    weights = with_label_head(tiny, tmp_path / "weights")
    with pytest.raises(ParityError):
        checked(tiny, weights, tmp_path, tokens=(7, 80, 33))
    config = model_config(tiny.student)
    tied = all_logits(reference_model(config, QuantizedWeights(tiny.quantized)))
    with pytest.raises(ParityError, match="exact"):
        check_parity(
            tmp_path / "model.onnx",
            tied,
            parity_cases(config["vocab_size"], 64, seed=0),
            threads=1,
            scratch=tmp_path,
            head_tokens=TOKENS,
        )


@pytest.mark.parametrize("format_", [INT8, Format(bits=32)], ids=str)
def test_no_product_has_the_size_of_the_vocabulary(
    format_: Format, quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    tiny = quantize(format_)
    config = model_config(tiny.student)
    (tmp_path / "full").mkdir()
    whole = write_model(tmp_path / "full", config, QuantizedWeights(tiny.quantized))
    ledger = write_model(tmp_path, config, QuantizedWeights(with_label_head(tiny, tmp_path / "weights")))
    graph = onnx.load(str(tmp_path / "model.onnx"), load_external_data=False).graph
    shape = [place.dim_value or place.dim_param for place in graph.output[0].type.tensor_type.shape.dim]
    assert shape == ["batch", 1, 3]
    readers = [node.op_type for node in graph.node if any("embedding" in name for name in node.input)]
    assert readers == ["GatherBlockQuantized" if format_.quantized else "Gather"]
    # Beside the full head's artifact: three fp32 rows of 64 more, in the file and in the ledger.
    bytes_of = [{row.name: row.bytes for row in rows if row.name != "graph"} for rows in (whole, ledger)]
    assert bytes_of[1] == bytes_of[0] | {LABEL_HEAD: 3 * 64 * 4}
    sizes = [(folder / "model.onnx.data").stat().st_size for folder in (tmp_path / "full", tmp_path)]
    assert sizes[1] - sizes[0] == 3 * 64 * 4


def test_the_stage_writes_nothing_that_generates(quantize: Callable[[Format], Tiny], tmp_path: Path) -> None:
    tiny = quantize(INT8)
    recipe = make_recipe(tmp_path, emit={"head": "verbalizers"})
    tokens = tuple(
        json.loads((tiny.student / "tokenizer.json").read_text())["model"]["vocab"].get(word, -1)
        for word in ("ĠYes", "ĠNo")
    )
    weights = with_label_head(tiny, tmp_path / "weights", tokens)
    output = run(Tiny(tiny.student, weights), tmp_path, recipe, make_target())
    names = {path.name for path in output.path.iterdir()}
    assert "decoder.json" in names
    assert not names & {"genai_config.json", "generation_config.json"}
    checks, task = checks_of(output), TaskFile.model_validate_json((output.path / "task.json").read_bytes())
    assert checks.logit_tokens == task.logit_tokens == tokens
    assert task.label_columns() == [(0,), (1,)]
    assert {row.file for row in checks.ledger} == names - {"checks.json", "stage.json"}
    assert checks.deviations == ()
    assert checks.accuracy[0].artifact == pytest.approx(checks.accuracy[0].student, abs=0.2)
    text = usage(task)
    assert "onnxruntime_genai" not in text
    assert "logit_tokens" in text
    full = run(tiny, tmp_path, make_recipe(tmp_path), make_target())
    assert not full.reused  # the head is part of the store's key


def test_labels_of_several_tokens_are_refused_by_name(
    quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    recipe = make_recipe(tmp_path, emit={"head": "verbalizers"})
    task = recipe.task.model_copy(update={"verbalizers": {"yes": " Yes", "no": " Zebra"}})
    with pytest.raises(DataError, match=r"'no' \(\d+ tokens\), expected labels of one token") as caught:
        run(quantize(INT8), tmp_path, recipe.model_copy(update={"task": task}), make_target())
    assert "emit.head: full" in str(caught.value)
