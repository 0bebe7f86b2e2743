"""The artifact for CUDA, run by CUDA's kernels. Skipped, with the reason, where onnxruntime has none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgeicl.emit.lowering import write_model
from edgeicl.emit.parity import SHIPPED_TOLERANCE_OF_HALVES, parity_cases
from edgeicl.emit.provider import CUDA, check_on_provider, cuda_available
from edgeicl.emit.reference import all_logits, reference_model
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.errors import ParityError
from edgeicl.models.model_folder import model_config
from edgeicl.specs.quant_plan import Format
from tests.unit.emit.other_numbers import with_halves
from tests.unit.emit.tiny_opt import Tiny, write_quantized
from tests.unit.tiny_models import VARIANTS, make_model

FORMATS = [Format(bits=4, block_size=32), Format(bits=8, block_size=32), Format(bits=16)]


@pytest.fixture(scope="module")
def provider() -> str:
    """`EDGEICL_TEST_DEVICE=cpu` runs the same code with the CPU's kernels, to check the tests themselves."""
    if os.environ.get("EDGEICL_TEST_DEVICE") == "cpu":
        return "CPUExecutionProvider"
    if not cuda_available():
        pytest.skip("onnxruntime has no CUDAExecutionProvider (install onnxruntime-gpu)")
    return CUDA


@pytest.mark.parametrize("format_", FORMATS, ids=str)
@pytest.mark.parametrize("variant", VARIANTS)
def test_agrees_with_transformers(variant: str, format_: Format, provider: str, tmp_path: Path) -> None:
    student = make_model(tmp_path, variant)
    (tmp_path / "plain").mkdir()
    write_quantized(student, tmp_path / "plain", format_)
    tiny = with_halves(Tiny(student, tmp_path / "plain"), tmp_path / "halves")
    config, weights = model_config(student), QuantizedWeights(tiny.quantized)
    write_model(tmp_path, config, weights)
    case = parity_cases(config["vocab_size"], 40, seed=0)[0]
    model, reference = tmp_path / "model.onnx", all_logits(reference_model(config, weights))
    tolerance = SHIPPED_TOLERANCE_OF_HALVES
    assert check_on_provider(model, reference, case, provider=provider, tolerance=tolerance)
    with pytest.raises(ParityError):
        check_on_provider(
            model, lambda ids, mask: -reference(ids, mask), case, provider=provider, tolerance=tolerance
        )
