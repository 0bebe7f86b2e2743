"""Plans with integer products: what is measured of them is what is written, step for step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeicl.numerics.affine import QuantizedMatrix
from edgeicl.quantize.calibrated_rounding import rounded_in_order
from edgeicl.quantize.calibration import calibration_sequences
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.input_steps import integer_products
from edgeicl.quantize.recovery_stage import computed_otherwise
from edgeicl.quantize.rounded_inputs import IntegerMatrix, Matrix, as_computed
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.stored_weights import read_again, read_stored
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.curve import SizeCurve
from edgeicl.specs.importance import ImportanceTable
from edgeicl.specs.prefix import write_prefix_source
from edgeicl.specs.quant_plan import BY_ROW, Format, QuantPlan
from edgeicl.store import StageOutput
from tests.unit.quantize.test_quantize_stage import INT2, LARGEST_BYTES, _recipe, _run, _target
from tests.unit.quantize.test_recovery_stage import data, deviations, recipe, run

__all__ = ["data"]  # a fixture

ROWS = [BY_ROW.model_dump(), INT2]
"""The layers in integer products, the table in 2 bits."""


def _steps(output: StageOutput) -> dict[str, float]:
    tensors = load_file(output.path / "weights.safetensors")
    end = ".input_step"
    return {name.removesuffix(end): float(v[0]) for name, v in tensors.items() if name.endswith(end)}


def _stored(output: StageOutput) -> dict[str, Matrix]:
    """What the files say an artifact computes with."""
    plan = QuantPlan.model_validate_json((output.path / "plan.json").read_bytes()).formats()
    tensors, steps = load_file(output.path / "weights.safetensors"), _steps(output)
    return {
        name: as_computed(read_again(matrix), plan[name], steps.get(name), rectified=name.endswith(".down"))
        for name, matrix in read_stored(tensors, plan).items()
    }


def _calibration(student: Path) -> list[list[int]]:
    task = _recipe().task
    return calibration_sequences(task, student, examples=8, seed=0, base_folder=student, behind_prefix=False)


@pytest.mark.parametrize("solver", ["rtn", "gptq"])
def test_the_loss_of_a_plan_is_of_what_is_written(
    student: Path, weights: StudentWeights, tmp_path: Path, solver: str
) -> None:
    output = _run(student, tmp_path, _target(ROWS, artifact_bytes=LARGEST_BYTES), solver=solver)
    layers = {group.name for group in weights.groups if group.layer is not None}
    assert _steps(output).keys() == layers
    decoder = CalibratedDecoder(weights, _calibration(student))
    sensitivity = Sensitivity(decoder)
    curve = SizeCurve.model_validate_json((output.path / "curve.json").read_bytes())
    (chosen,) = [point for point in curve.points if point.kind == "chosen"]
    assert chosen.measured_loss == pytest.approx(sensitivity.loss(_stored(output)), rel=1e-4)
    token_by_token = {
        name: replace(matrix, input_step=None) if isinstance(matrix, IntegerMatrix) else matrix
        for name, matrix in _stored(output).items()
    }
    other = sensitivity.loss(token_by_token)
    assert chosen.measured_loss != pytest.approx(other, rel=1e-4)  # negative control
    # and of each group alone
    table = ImportanceTable.model_validate_json((output.path / "importance.json").read_bytes()).losses()
    group = "layers.0.mlp.up"
    if solver == "rtn":
        alone = sensitivity.loss({group: _stored(output)[group]})
        assert table[group][BY_ROW] == pytest.approx(alone, rel=2e-3)  # what moves is in bfloat16 with AMX


def test_gptq_rounds_later_groups_for_inputs_in_steps(student: Path, weights: StudentWeights) -> None:
    plan = {group.name: BY_ROW if group.layer is not None else Format(bits=32) for group in weights.groups}

    def codes(decoder: CalibratedDecoder) -> dict[str, np.ndarray]:
        found = dict(rounded_in_order(weights, plan, decoder))
        return {name: one.codes for name, one in found.items() if isinstance(one, QuantizedMatrix)}

    decoder = CalibratedDecoder(weights, _calibration(student))
    in_steps = codes(decoder)
    decoder.input_steps.clear()  # negative control: each token rounded by its own
    by_token = codes(decoder)
    first = "layers.0.attention.qkv"
    assert np.array_equal(in_steps[first], by_token[first])  # before it nothing is rounded
    assert not np.array_equal(in_steps["layers.1.mlp.up"], by_token["layers.1.mlp.up"])


def test_no_step_without_an_integer_product(student: Path, weights: StudentWeights, tmp_path: Path) -> None:
    output = _run(student, tmp_path, _target([INT2], artifact_bytes=LARGEST_BYTES))
    assert _steps(output) == {}
    plan = {group.name: Format(bits=4, block_size=32) for group in weights.groups}
    assert integer_products(weights.groups, plan, None) == set()
    layers = {group.name for group in weights.groups if group.layer is not None}
    assert integer_products(weights.groups, plan, BY_ROW) == layers
    assert integer_products(weights.groups, plan | {"layers.0.mlp.up": BY_ROW}, None) == {"layers.0.mlp.up"}


def test_steps_follow_what_training_made_of_the_student(
    student: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Measured with the weights of the files, behind what stands before queries."""
    asked: list[tuple[CalibratedDecoder, Mapping[str, Matrix] | None]] = []
    measure = CalibratedDecoder.input_steps_with

    def noted(self: CalibratedDecoder, replaced: Mapping[str, Matrix] | None) -> dict[str, float]:
        asked.append((self, replaced))
        return measure(self, replaced)

    monkeypatch.setattr(CalibratedDecoder, "input_steps_with", noted)
    monkeypatch.setattr("tests.unit.quantize.test_recovery_stage._target", lambda _, **b: _target(ROWS, **b))
    prefix = tmp_path / "prefix.safetensors"
    write_prefix_source(prefix, [np.array([3, 4, 5])])
    plan, found = run(student, data, tmp_path, recipe(recover={"learning_rate": 0.02}), prefix=prefix)
    before, after = _steps(plan), _steps(found)
    assert before.keys() == after.keys() != set()
    assert all(before[group] != after[group] for group in before)
    assert all(0.5 < after[group] / before[group] < 2 for group in before)
    (unquantized, nothing), (trained, stored) = asked
    assert nothing is None
    assert unquantized.prefix_tokens == trained.prefix_tokens == 3
    tensors = load_file(found.path / "weights.safetensors")
    written = QuantPlan.model_validate_json((found.path / "plan.json").read_bytes()).formats()
    assert stored is not None
    assert stored.keys() == written.keys()
    for name, matrix in read_stored(tensors, written).items():
        np.testing.assert_array_equal(np.asarray(stored[name]), read_again(matrix))
    assert after == {name: pytest.approx(step) for name, step in measure(trained, stored).items()}
    (told,) = [entry for entry in deviations(found) if entry["what"] == "recovery"]
    assert "inputs of integer products" in told["got"]


def test_a_copy_for_prompts_rounds_inputs_too(student: Path, tmp_path: Path) -> None:
    output = _run(student, tmp_path, _target([INT2], artifact_bytes=LARGEST_BYTES))
    plan = QuantPlan.model_validate_json((output.path / "plan.json").read_bytes())
    assert computed_otherwise(plan) == []
    (told,) = computed_otherwise(plan.model_copy(update={"prompt_format": BY_ROW}))
    assert told.got == "training without the rounding of inputs of integer products"
