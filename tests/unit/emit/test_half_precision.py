"""The graph with fp16 activations, as it is made for CUDA, computed by the CPU's kernels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgeicl.emit.lowering import write_model
from edgeicl.emit.parity import check_parity, parity_cases
from edgeicl.emit.provider import check_on_provider
from edgeicl.emit.reference import all_logits, reference_model
from edgeicl.emit.usage import usage
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.errors import ParityError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.model_folder import model_config
from edgeicl.numerics.size import group_bytes
from edgeicl.specs.manifest import TaskFile
from edgeicl.specs.quant_plan import Format
from tests.unit.emit.other_numbers import with_halves
from tests.unit.emit.test_emit_stage import checks_of, make_recipe, make_target, run
from tests.unit.emit.test_label_head import TOKENS as LABELS
from tests.unit.emit.test_label_head import checked, with_label_head
from tests.unit.emit.tiny_opt import Tiny, write_quantized
from tests.unit.tiny_models import VARIANTS, make_model

INT4, HALF = Format(bits=4, block_size=16), Format(bits=16)
CPU = "CPUExecutionProvider"


@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_transformers_in_every_architecture(variant: str, tmp_path: Path) -> None:
    """Exactly, computed in fp32, and to the tolerance of fp16; and the ledger is exact."""
    student = make_model(tmp_path, variant)
    for format_ in (INT4, HALF):
        folder = tmp_path / f"plain{format_.bits}"
        folder.mkdir()
        write_quantized(student, folder, format_)
        tiny = with_halves(Tiny(student, folder), tmp_path / f"halves{format_.bits}")
        config, weights = model_config(student), QuantizedWeights(tiny.quantized)
        ledger = write_model(tmp_path, config, weights)
        checks = check_parity(
            tmp_path / "model.onnx",
            all_logits(reference_model(config, weights)),
            parity_cases(config["vocab_size"], 40, seed=0),
            threads=1,
            scratch=tmp_path,
            cache_bits=16,
            activation_bits=16,
        )
        assert any(check.max_abs_difference / check.reference_scale > 1e-5 for check in checks)
        anatomy = anatomy_of(config)
        stored = sum(group_bytes(*group.shape, format_, scale_bytes=2) for group in anatomy.groups)
        data = sum(entry.bytes for entry in ledger if entry.file == "model.onnx.data")
        assert data == stored + anatomy.fixed_tensor_bytes // 2 == (tmp_path / "model.onnx.data").stat().st_size


def test_labels_rows_stay_in_fp32(quantize: Callable[[Format], Tiny], tmp_path: Path) -> None:
    tiny, _ = _halves(quantize, tmp_path)
    weights = with_label_head(tiny, tmp_path / "weights")
    assert checked(tiny, weights, tmp_path, tokens=LABELS)
    with pytest.raises(ParityError):
        checked(tiny, weights, tmp_path, tokens=LABELS[::-1])


def _halves(quantize: Callable[[Format], Tiny], folder: Path) -> tuple[Tiny, QuantizedWeights]:
    tiny = with_halves(quantize(INT4), folder / "halves")
    return tiny, QuantizedWeights(tiny.quantized)


def test_a_provider_that_computes_something_else_is_rejected(
    quantize: Callable[[Format], Tiny], tmp_path: Path
) -> None:
    """The check that runs where there is a GPU, with the CPU in its place."""
    tiny, weights = _halves(quantize, tmp_path)
    config = model_config(tiny.student)
    case = parity_cases(config["vocab_size"], 40, seed=0)[1]

    def check(weights: QuantizedWeights) -> list[str]:
        reference = all_logits(reference_model(config, weights))
        model = tmp_path / "model.onnx"
        found = check_on_provider(model, reference, case, provider=CPU, tolerance=0.02)
        return [entry.name for entry in found]

    write_model(tmp_path, config, weights)
    assert check(weights) == [f"{CPU}, padded batch, prefill", f"{CPU}, padded batch, decode"]
    spoiled = tmp_path / "spoiled"
    spoiled.mkdir()
    tensors = load_file(tiny.quantized / "weights.safetensors")
    tensors["layers.0.mlp.up.scales"] = tensors["layers.0.mlp.up.scales"] * np.float16(1.25)
    save_file(tensors, spoiled / "weights.safetensors")
    (spoiled / "plan.json").write_text((tiny.quantized / "plan.json").read_text())
    with pytest.raises(ParityError, match="prefill: logits differ by"):
        check(QuantizedWeights(spoiled))
    model = tmp_path / "model.onnx"
    with pytest.raises(ParityError, match="can't run"), pytest.warns(UserWarning, match="NoProvider"):
        check_on_provider(model, lambda ids, mask: ids, case, provider="NoProvider", tolerance=1)


def test_an_artifact_for_cuda_says_where_it_was_checked(
    quantize: Callable[[Format], Tiny], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeicl.emit.provider.ort.get_available_providers", lambda: [CPU])
    tiny, _ = _halves(quantize, tmp_path)
    target = make_target().model_copy(update={"provider": "cuda"})
    output = run(tiny, tmp_path, make_recipe(tmp_path, limits={"accuracy_drop_points": 100.0}), target)
    session = json.loads((output.path / "genai_config.json").read_text())["model"]["decoder"]["session_options"]
    assert session == {"intra_op_num_threads": 1, "provider_options": [{"cuda": {}}]}
    (found,) = [entry for entry in checks_of(output).deviations if entry.what == "provider"]
    assert (found.asked, found.got) == ("cuda", "cpu")
    assert "no CUDAExecutionProvider: the CPU's kernels ran the same graph" in found.why
    shipped = [check for check in checks_of(output).parity if check.name.startswith("shipped")]
    assert {round(check.tolerance / check.reference_scale, 6) for check in shipped} == {0.02}
    task = TaskFile.model_validate_json((output.path / "task.json").read_text())
    assert '["CUDAExecutionProvider", "CPUExecutionProvider"]' in usage(task, "cuda")
    assert 'providers=["CPUExecutionProvider"]' in usage(task)
