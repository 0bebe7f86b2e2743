"""The loss of reading prompts with a second copy of the layers, from what was written."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from edgeicl.numerics.affine import QuantizedMatrix
from edgeicl.quantize.calibration import calibration_sequences
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.rounded_inputs import IntegerMatrix, as_computed
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.stored_weights import read_again, read_stored
from edgeicl.quantize.student_weights import read_weights
from edgeicl.specs.quant_plan import BY_ROW, QuantPlan
from tests.unit.quantize.test_first_token import plan_of, timed
from tests.unit.quantize.test_quantize_stage import _recipe, _run


@pytest.mark.parametrize("solver", ["rtn", "gptq"])
def test_the_loss_of_a_copy_is_of_what_is_stored(student: Path, tmp_path: Path, solver: str) -> None:
    """The copy is rounded to nearest whatever the solver; the embedding by the solver."""
    fastest = 0.26 * (plan_of(student, tmp_path, timed()).predicted_first_token_ms or 0.0)
    output = _run(student, tmp_path, timed(first_token_ms=fastest), solver=solver)
    plan = QuantPlan.model_validate_json((output.path / "plan.json").read_bytes())
    weights, tensors = read_weights(student), load_file(output.path / "weights.safetensors")
    read = {}
    for name, matrix in read_stored(tensors, plan.formats()).items():
        codes = tensors.get(f"prompt.{name}.codes")
        if codes is None:
            read[name] = as_computed(read_again(matrix), plan.formats()[name])
            continue
        copy = QuantizedMatrix(codes, tensors[f"prompt.{name}.scales"], None, 8, codes.shape[1])
        step = tensors.get(f"{name}.input_step")
        of_relu = name.endswith(".down")
        one_step = None if step is None else float(step[0])
        read[name] = as_computed(read_again(copy), BY_ROW, one_step, rectified=of_relu)
    assert sum(isinstance(one, IntegerMatrix) and one.input_step is not None for one in read.values()) >= 4
    sequences = calibration_sequences(
        _recipe().task, student, examples=8, seed=0, base_folder=student, behind_prefix=False
    )
    found = Sensitivity(CalibratedDecoder(weights, sequences)).loss(read)
    assert plan.prompt_loss == pytest.approx(found, rel=1e-4)
