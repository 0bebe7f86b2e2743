"""The layer-by-layer student against transformers' OPT, and losses against KL computed from scratch."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from transformers import OPTForCausalLM

from edgeicl.errors import DataError
from edgeicl.numerics.affine import dequantize, round_to_nearest
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.sensitivity import Sensitivity, divergence
from edgeicl.quantize.stored_weights import stored_values
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.quant_plan import Format
from tests.unit.divergence import kl
from tests.unit.quantize.tiny_student import SEQUENCES

INT2 = Format(bits=2, block_size=16)
INT4 = Format(bits=4, block_size=32)
INT8 = Format(bits=8, block_size=32)


def _logits(model: OPTForCausalLM) -> np.ndarray:
    with torch.inference_mode():
        return np.concatenate([model(torch.tensor([s])).logits[0].numpy() for s in SEQUENCES])


def _with_group_stored(
    model: OPTForCausalLM, weights: StudentWeights, name: str, format_: Format
) -> OPTForCausalLM:
    changed = copy.deepcopy(model)
    group = next(group for group in weights.groups if group.name == name)
    stored = torch.from_numpy(dequantize(round_to_nearest(weights.matrices[name], format_)))
    with torch.no_grad():
        for parameter, rows in zip(group.weights, stored.chunk(len(group.weights)), strict=True):
            changed.get_parameter(parameter).copy_(rows)
    return changed


def test_logits_are_those_of_transformers(weights: StudentWeights, reference: OPTForCausalLM) -> None:
    decoder = CalibratedDecoder(weights, SEQUENCES)
    found = decoder.logits(decoder.layer_inputs()[-1]).numpy()
    expected = _logits(reference)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_read_positions_end_each_sequence(weights: StudentWeights) -> None:
    """Lengths 7, 4, 10, 1: sequences end at rows 6, 10, 20, 21; two of each: also the one in the middle."""
    decoder = CalibratedDecoder(weights, SEQUENCES)
    assert decoder.read_positions(1).tolist() == [6, 10, 20, 21]
    assert decoder.read_positions(2).tolist() == [2, 6, 8, 10, 15, 20, 21]
    assert decoder.read_positions(99).tolist() == list(range(22))


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([], "expected 1 to 40"),
        ([[]], "expected 1 to 40"),
        ([[0] * 41], r"have \[41\] tokens"),
        ([[96]], "vocabulary of 96"),
    ],
)
def test_sequences_that_the_model_can_not_take(
    weights: StudentWeights, sequences: list[list[int]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        CalibratedDecoder(weights, sequences)


@pytest.mark.parametrize("name", ["layers.0.attention.qkv", "layers.1.mlp.down", "embedding"])
def test_loss_is_the_kl_of_the_changed_model(
    weights: StudentWeights, reference: OPTForCausalLM, name: str
) -> None:
    """From scratch: transformers' model with the group's parameters replaced, KL by the reference numpy."""
    decoder = CalibratedDecoder(weights, SEQUENCES)
    group = next(group for group in weights.groups if group.name == name)
    found = Sensitivity(decoder, read_positions_per_sequence=2).losses([group], weights, INT4)
    rows = decoder.read_positions(2).numpy()
    changed = _logits(_with_group_stored(reference, weights, name, INT4))
    expected = kl(_logits(reference)[rows], changed[rows]).mean()
    assert expected > 1e-5
    assert found[name] == pytest.approx(expected, rel=1e-3)


def test_loss_of_several_groups_at_once(weights: StudentWeights, reference: OPTForCausalLM) -> None:
    decoder = CalibratedDecoder(weights, SEQUENCES)
    changed = reference
    stored = {}
    for group in weights.groups:
        changed = _with_group_stored(changed, weights, group.name, INT4)
        stored[group.name] = torch.from_numpy(stored_values(weights.matrices[group.name], INT4))
    expected = kl(_logits(reference), _logits(changed)).mean()
    found = Sensitivity(decoder, read_positions_per_sequence=99).loss(stored)
    assert found == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("moved", [1e-5, 1e-3, 0.1, 3.0, 30.0])
def test_divergence_in_fp32_is_that_of_fp64(moved: float) -> None:
    """From differences of 1e-5, which a logit in fp32 hardly tells, to other distributions altogether."""
    random = np.random.default_rng(0)
    own = random.normal(0, 3, (20, 50_000)).astype(np.float32)
    other = own + (random.normal(0, moved, own.shape) + 2 * moved).astype(np.float32)  # a shift moves nothing
    probabilities = torch.from_numpy(own).double().softmax(-1).float()
    found = divergence(probabilities, torch.from_numpy(own), torch.from_numpy(other))
    expected = [kl(a[None].astype(np.float64), b[None].astype(np.float64)).mean() for a, b in zip(own, other)]  # noqa: B905
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-12)


def test_divergence_of_what_had_no_probability() -> None:
    own, other = torch.tensor([[0.0, -200.0, 0.0]]), torch.tensor([[0.0, 200.0, 0.0]])
    assert float(divergence(own.softmax(-1), own, other)) == pytest.approx(200 - np.log(2), rel=1e-6)


def test_what_is_known_of_a_layer_changes_no_loss(weights: StudentWeights) -> None:
    """Forwards, backwards and one by one, each with a measure of its own: what is kept is of one layer."""
    decoder = CalibratedDecoder(weights, SEQUENCES)
    one_by_one = {
        group.name: Sensitivity(decoder).losses([group], weights, INT4)[group.name] for group in weights.groups
    }
    sensitivity = Sensitivity(decoder)
    for groups in (weights.groups, weights.groups[::-1], weights.groups):
        assert sensitivity.losses(groups, weights, INT4) == one_by_one
    assert len(set(one_by_one.values())) == len(one_by_one)


def test_nothing_replaced_loses_nothing_and_damage_loses_much(weights: StudentWeights) -> None:
    sensitivity = Sensitivity(CalibratedDecoder(weights, SEQUENCES))
    matrix = weights.matrices["layers.0.mlp.up"]
    assert abs(sensitivity.loss({})) < 1e-12
    assert abs(sensitivity.loss({"layers.0.mlp.up": torch.from_numpy(matrix)})) < 1e-10
    rounded = sensitivity.loss({"layers.0.mlp.up": torch.from_numpy(stored_values(matrix, INT8))})
    shifted = sensitivity.loss({"layers.0.mlp.up": torch.from_numpy(np.roll(matrix, 1, axis=1))})
    assert 0 < rounded < 1e-3 < shifted


def test_losses_by_format(weights: StudentWeights) -> None:
    sensitivity = Sensitivity(CalibratedDecoder(weights, SEQUENCES))
    advanced: list[int] = []
    table = [
        sensitivity.losses(weights.groups, weights, format_, advance=advanced.append)
        for format_ in (INT2, INT4, INT8, Format(bits=16), Format(bits=32))
    ]
    totals = [sum(losses.values()) for losses in table]
    assert totals == sorted(totals, reverse=True)
    assert totals[-1] == 0
    assert sum(advanced) == 5 * sensitivity.passes(weights.groups)
    # the second layer was made to say little
    assert table[0]["layers.0.mlp.down"] > 3 * table[0]["layers.1.mlp.down"]


def test_weights_beyond_fp16_are_refused() -> None:
    with pytest.raises(DataError, match="a number of 70000 is too large for 16 bits"):
        stored_values(np.full((1, 16), 7e4, np.float32), Format(bits=16))
