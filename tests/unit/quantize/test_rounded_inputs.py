"""Integer products as the importance of groups sees them: inputs are rounded, and that is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgeicl.numerics.affine import dequantize, round_to_nearest
from edgeicl.numerics.gptq import gptq
from edgeicl.numerics.size import group_bytes, held_bytes
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.input_steps import InputSteps
from edgeicl.quantize.offered_formats import offered_formats
from edgeicl.quantize.rounded_inputs import IntegerMatrix, as_computed, product, rounded
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.stored_weights import stored_values
from edgeicl.quantize.student_weights import read_weights
from edgeicl.specs.quant_plan import Format
from edgeicl.specs.target import VNNI, Target
from tests.unit.quantize.test_quantize_stage import ALL, _target

ROW = Format(bits=8, block_size="row")


def test_on_paper() -> None:
    """Steps of 2 / 127 and of 127 / 127: 0.5 becomes 32 steps of the first, 0.6 one of the second."""
    rows = torch.tensor([[2.0, 0.5, -2.0], [-127.0, 0.6, 0.4], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[2.0, 32 * 2 / 127, -2.0], [-127.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(rounded(rows), expected)
    matrix = torch.eye(3)
    torch.testing.assert_close(product(rows, IntegerMatrix(matrix)), expected)
    torch.testing.assert_close(product(rows, matrix), rows)


def test_one_step_on_paper() -> None:
    """Steps of 0.5: 0.3 is nearer to one of them than to none; beyond 127 and -128 of them it is cut off."""
    rows = torch.tensor([[0.3, -0.2, 100.0], [-100.0, 63.5, 0.0]])
    expected = torch.tensor([[0.5, 0.0, 63.5], [-64.0, 63.5, 0.0]])
    torch.testing.assert_close(rounded(rows, 0.5), expected)
    torch.testing.assert_close(product(rows, IntegerMatrix(torch.eye(3), 0.5)), expected)


def test_inputs_out_of_a_relu_on_paper() -> None:
    """255 steps up to the largest, of 2 / 255 and of 1: 0.5 is 64 of the first. 255 of 0.5 end at 127.5."""
    rows = torch.tensor([[2.0, 0.5, 0.0], [255.0, 0.6, 0.4], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[2.0, 64 * 2 / 255, 0.0], [255.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(rounded(rows, rectified=True), expected)
    torch.testing.assert_close(product(rows, IntegerMatrix(torch.eye(3), rectified=True)), expected)
    expected = torch.tensor([[2.0, 0.5, 0.0], [127.5, 0.5, 0.5], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(rounded(rows, 0.5, rectified=True), expected)
    torch.testing.assert_close(product(rows, IntegerMatrix(torch.eye(3), 0.5, rectified=True)), expected)


def test_which_inputs_have_one_step() -> None:
    """One token of 2.78 beside 99 of 1 is 2.69 times the root mean square of all; one of 2.80 2.71 times."""
    seen = InputSteps()
    seen("alike", torch.tensor([[2.0, 0.0], [0.5, -2.0], [-1.0, 1.0]]))
    seen("just alike", torch.cat([torch.full((1, 2), -2.78), torch.ones(99, 2)]))
    seen("one too far", torch.cat([torch.full((1, 2), -2.80), torch.ones(99, 2)]))
    seen("zeros", torch.zeros(3, 2))
    steps = {"alike": pytest.approx(2.2 / 127), "just alike": pytest.approx(3.058 / 127)}
    assert seen.found() == steps  # a tenth farther than what was seen


def test_which_inputs_out_of_a_relu_have_one_step() -> None:
    """A token of 6.41 beside 99 of 1 is 5.414 times the root mean square; 2.7 times 255 / 127 are 5.421."""
    seen = InputSteps(rectified={"just alike", "one too far"})
    seen("just alike", torch.cat([torch.full((1, 2), 6.41), torch.ones(99, 2)]))
    seen("one too far", torch.cat([torch.full((1, 2), 6.43), torch.ones(99, 2)]))
    seen("of no relu", torch.cat([torch.full((1, 2), 6.41), torch.ones(99, 2)]))
    assert seen.found() == {"just alike": pytest.approx(7.051 / 255)}


def test_a_prefix_has_no_part_in_it() -> None:
    seen = InputSteps(prefix_tokens=1)
    seen("group", torch.tensor([[100.0, 0.0], [1.0, 0.0], [0.0, -1.0]]))
    assert seen.found() == {"group": pytest.approx(1.1 / 127)}


def test_steps_of_a_student(student: Path) -> None:
    """Of every group with inputs, as random weights are alike everywhere; and that is what is computed with."""
    weights = read_weights(student)
    decoder = CalibratedDecoder(weights, [list(range(3, 40)), list(range(50, 80))])
    assert decoder.input_steps.keys() == {group.name for group in weights.groups} - {"embedding"}
    group = "layers.0.attention.qkv"
    matrix = decoder.matrix_of(group, weights.matrices[group], ROW)
    assert isinstance(matrix, IntegerMatrix)
    assert matrix.input_step == decoder.input_steps[group]
    assert not matrix.rectified
    assert isinstance(decoder.matrix_of(group, weights.matrices[group], Format(bits=32)), torch.Tensor)
    of_relu = decoder.matrix_of("layers.0.mlp.down", weights.matrices["layers.0.mlp.down"], ROW)
    assert isinstance(of_relu, IntegerMatrix)
    assert of_relu.rectified
    largest: list[float] = []
    decoder.layer(
        0,
        decoder.embed(),
        before=lambda name, rows: largest.append(float(rows.max())) if name.endswith(".down") else None,
    )
    assert of_relu.input_step == pytest.approx(1.1 * largest[0] / 255, rel=1e-5)
    norm = next(name for name in weights.others if "layers.0.self_attn_layer_norm.weight" in name)
    for name in (norm, norm.replace("weight", "bias")):
        weights.others[name] *= 4  # what the norm gives is four times as large, and so are steps
    again = CalibratedDecoder(weights, [list(range(3, 40)), list(range(50, 80))])
    assert again.input_steps[group] == pytest.approx(4 * decoder.input_steps[group], rel=1e-5)


def test_sizes_on_paper() -> None:
    """48 rows of 172: a byte a weight and four a row, the same in memory."""
    assert group_bytes(48, 172, ROW) == held_bytes(48, 172, ROW) == 48 * 172 + 48 * 4
    assert str(ROW) == "int8/row"


def test_a_row_has_one_scale() -> None:
    random = np.random.default_rng(0)
    weights = random.standard_normal((4, 300)).astype(np.float32)
    stored = round_to_nearest(weights, ROW)
    assert stored.scales.shape == (4, 1)
    np.testing.assert_allclose(np.abs(stored.scales[:, 0]), np.abs(weights).max(axis=1) / 128, rtol=1e-6)
    inputs = random.standard_normal((900, 300)) @ random.standard_normal((300, 300))
    moments = inputs.T @ inputs / len(inputs)

    def error(matrix: np.ndarray) -> float:
        return float(np.einsum("nk,nk->", (matrix - weights) @ moments, matrix - weights))

    # in steps of 256 columns, which is less than the row
    assert error(dequantize(gptq(weights, ROW, moments))) < 0.8 * error(dequantize(stored))


@pytest.mark.parametrize("wrong", [{"bits": 4}, {"bits": 8, "symmetric": False}, {"bits": 16}])
def test_other_formats_have_no_rows(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Format.model_validate({"block_size": "row", **wrong})


def test_tokens_are_not_looked_up_in_them(student: Path) -> None:
    groups = read_weights(student).groups
    assert [group.name for group in groups if not offered_formats(group, [ROW])] == ["embedding"]


def test_sensitivity_sees_inputs_with_outliers(student: Path) -> None:
    """A column of inputs a hundred times as large spoils the rounding of the others, and of nothing else."""
    weights = read_weights(student)
    group = "layers.0.mlp.up"
    norm = next(name for name in weights.others if "layers.0" in name and "final_layer_norm.weight" in name)
    bias = norm.replace("weight", "bias")

    def losses() -> tuple[float, float]:
        decoder = CalibratedDecoder(weights, [list(range(3, 40)), list(range(50, 80))])
        sensitivity = Sensitivity(decoder)
        values = stored_values(weights.matrices[group], ROW)
        return (
            sensitivity.loss({group: as_computed(values, ROW)}),
            sensitivity.loss({group: torch.from_numpy(values)}),
        )

    before, weights_alone = losses()
    assert before > weights_alone > 0
    # the same function of the same tokens: what the norm multiplies, the matrix divides
    for name in (norm, bias):
        weights.others[name][3] *= 100
    weights.matrices[group][:, 3] /= 100
    with_outlier, _ = losses()
    assert with_outlier > 20 * before


def test_cores_whose_sums_saturate_are_refused() -> None:
    target = _target([*ALL, ROW.model_dump()], artifact_bytes=1).model_dump(mode="json")
    for features in ([], ["dotprod"], ["avx2", VNNI[0]]):
        Target.model_validate(target | {"instruction_features": features})
    with pytest.raises(ValidationError, match="saturate with avx2 alone"):
        Target.model_validate(target | {"instruction_features": ["avx2"]})
