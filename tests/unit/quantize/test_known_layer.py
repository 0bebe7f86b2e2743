"""Losses from what groups move, beside those of the student computed anew, for every architecture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from edgeicl.models.anatomy import WeightGroup
from edgeicl.quantize import sensitivity as module
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.known_layer import KnownProduct, fast_for_differences
from edgeicl.quantize.rounded_inputs import Matrix
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.stored_weights import stored_values
from edgeicl.quantize.student_weights import StudentWeights, read_weights
from edgeicl.specs.quant_plan import Format
from tests.unit.tiny_models import VARIANTS, make_model

SEQUENCES = [[0, 7, 8, 9, 10, 11, 5], [0, 20, 30, 5], [*range(40, 90)], [6]]
INT4, INT8 = Format(bits=4, block_size=32), Format(bits=8, block_size=32)
IN_FP32, IN_BFLOAT16 = 1e-4, 1e-2  # of a loss
OF_TWO_LABELS = 3e-2  # over two logits at few positions errors hardly average out


@pytest.fixture(scope="module", params=VARIANTS)
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StudentWeights:
    return read_weights(make_model(tmp_path_factory.mktemp("student"), request.param))


def _anew(decoder: CalibratedDecoder, weights: StudentWeights, format_: Format) -> dict[str, float]:
    """Each group put in alone, the whole student behind it computed in fp32."""
    measured = Sensitivity(decoder)

    def matrix(name: str) -> Matrix:
        return decoder.matrix_of(name, stored_values(weights.matrices[name], format_), format_)

    return {group.name: measured.loss({group.name: matrix(group.name)}) for group in _groups(weights, format_)}


def _groups(weights: StudentWeights, format_: Format) -> list[WeightGroup]:
    """Those that may have the format: integer products are of layers alone."""
    return [group for group in weights.groups if group.layer is not None or not format_.by_row]


def _farthest(found: dict[str, float], expected: dict[str, float]) -> float:
    """The largest difference, relative to the loss."""
    assert found.keys() == expected.keys()
    assert min(expected.values()) > 0
    return max(abs(found[name] / expected[name] - 1) for name in expected)


@pytest.mark.parametrize("format_", [INT4, INT8, Format(bits=8, block_size="row")], ids=str)
@pytest.mark.parametrize("behind", [0, 3])
def test_losses_are_those_of_the_student_computed_anew(
    weights: StudentWeights, format_: Format, behind: int
) -> None:
    prefix = np.arange(60, 60 + behind) if behind else None
    decoder = CalibratedDecoder(weights, SEQUENCES, prefix)
    expected, groups = _anew(decoder, weights, format_), _groups(weights, format_)
    assert _farthest(Sensitivity(decoder).losses(groups, weights, format_), expected) < IN_FP32
    found = Sensitivity(decoder, moved_in=torch.bfloat16).losses(groups, weights, format_)
    assert 0 < _farthest(found, expected) < IN_BFLOAT16


def test_inputs_in_bfloat16_would_hide_the_losses(
    weights: StudentWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative control: the same products, but of the inputs and not of how far they moved."""

    def of_inputs(known: KnownProduct, inputs: Tensor) -> Tensor:
        bias = known.outputs - F.linear(known.inputs, known.coarse_matrix.float())
        return F.linear(inputs.bfloat16(), known.coarse_matrix).float() + bias

    decoder = CalibratedDecoder(weights, SEQUENCES)
    expected = _anew(decoder, weights, INT8)
    monkeypatch.setattr(KnownProduct, "moved_to", of_inputs)
    found = Sensitivity(decoder, moved_in=torch.bfloat16).losses(weights.groups, weights, INT8)
    assert _farthest(found, expected) > 10 * IN_BFLOAT16


@pytest.mark.parametrize("moved_in", [None, torch.bfloat16], ids=str)
def test_groups_go_through_the_layers_a_few_at_a_time(
    weights: StudentWeights, monkeypatch: pytest.MonkeyPatch, moved_in: torch.dtype | None
) -> None:
    measured = Sensitivity(CalibratedDecoder(weights, SEQUENCES), moved_in=moved_in)
    at_once = measured.losses(weights.groups, weights, INT4)
    monkeypatch.setattr(module, "_STATES_AT_ONCE_BYTES", 3 * measured.states[0].nbytes)
    told: list[int] = []
    assert measured.losses(weights.groups[::-1], weights, INT4, advance=told.append) == at_once
    assert sum(told) == measured.passes(weights.groups)


def test_labels_of_a_head_of_few_rows(weights: StudentWeights) -> None:
    if not weights.anatomy.tied:
        pytest.skip("a head of label rows is of a tied table")
    decoder = CalibratedDecoder(weights, SEQUENCES, head_tokens=[5, 40])
    expected = _anew(decoder, weights, INT4)
    found = Sensitivity(decoder, moved_in=torch.bfloat16).losses(weights.groups, weights, INT4)
    assert _farthest(found, expected) < OF_TWO_LABELS


def test_moved_outputs_on_paper() -> None:
    """[[1, 2], [3, 4]] at (1, 1) with a bias of (10, 20); an input that moves by (0.5, 0) moves (0.5, 1.5)."""
    matrix = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    known = KnownProduct(torch.ones(1, 2), torch.tensor([[13.0, 27.0]]), matrix.bfloat16())
    assert known.moved_to(torch.tensor([[1.5, 1.0]])).tolist() == [[13.5, 28.5]]


@pytest.mark.parametrize("has_amx", [True, False])
def test_differences_are_coarse_where_that_is_fast(monkeypatch: pytest.MonkeyPatch, has_amx: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_amx)
    assert fast_for_differences() == (torch.bfloat16 if has_amx else None)
