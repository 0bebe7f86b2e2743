"""GPTQ over a whole student: inputs from transformers, and what it gains where its inputs come from."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import OPTForCausalLM

from edgeicl.models.anatomy import EMBEDDING
from edgeicl.numerics.affine import QuantizedMatrix, dequantize, round_to_nearest
from edgeicl.numerics.gptq import gptq
from edgeicl.quantize.calibrated_rounding import EMBEDDING_DAMPENING, inputs_alone, rounded_in_order
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.solver import solve
from edgeicl.quantize.stored_weights import read_again
from edgeicl.quantize.student_weights import StudentWeights, read_weights
from edgeicl.specs.quant_plan import Format
from tests.unit.quantize.tiny_student import SEQUENCES
from tests.unit.tiny_models import VARIANTS, make_model

INT2, INT4 = Format(bits=2, block_size=16), Format(bits=4, block_size=32)
FP16, FP32 = Format(bits=16), Format(bits=32)


def _inputs(model: OPTForCausalLM, weight: str) -> np.ndarray:
    """Input rows [T, K] of the linear layer whose weight this is, by transformers."""
    kept: list[np.ndarray] = []
    name = "lm_head" if "embed_tokens" in weight else weight.removesuffix(".weight")
    hook = model.get_submodule(name).register_forward_pre_hook(
        lambda _, args: kept.append(args[0].reshape(-1, args[0].shape[-1]).numpy())
    )
    with torch.inference_mode():
        for sequence in SEQUENCES:
            model(torch.tensor([sequence]))
    hook.remove()
    return np.concatenate(kept)


def test_inputs_are_those_of_transformers(weights: StudentWeights, reference: OPTForCausalLM) -> None:
    decoder = CalibratedDecoder(weights, SEQUENCES)
    states = decoder.layer_inputs()
    for group in weights.groups:
        found, expected = inputs_alone(decoder, states, group).numpy(), _inputs(reference, group.weights[0])
        assert found.shape == (22, group.shape[1])
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_each_group_is_rounded_for_what_reaches_it(weights: StudentWeights, reference: OPTForCausalLM) -> None:
    """In a copy of transformers' model, groups are replaced one after the other as they were stored."""
    plan = {group.name: INT4 for group in weights.groups}
    plan |= {"layers.0.mlp.up": INT2, "layers.1.attention.qkv": FP16, "layers.0.attention.output": FP32}
    found = dict(rounded_in_order(weights, plan, CalibratedDecoder(weights, SEQUENCES)))
    assert found.keys() == plan.keys()
    model = copy.deepcopy(reference)
    embedding_first = sorted(weights.groups, key=lambda group: group.name != EMBEDDING)
    for group in embedding_first:
        stored = found[group.name]
        if isinstance(stored, QuantizedMatrix):
            inputs = _inputs(model, group.weights[0]).astype(np.float64)
            dampening = EMBEDDING_DAMPENING if group.name == EMBEDDING else 0.01
            moments = inputs.T @ inputs / len(inputs)
            expected = gptq(weights.matrices[group.name], plan[group.name], moments, dampening=dampening)
            assert (stored.codes == expected.codes).mean() > 0.995  # the inputs differ by 1e-7
            alone = round_to_nearest(weights.matrices[group.name], plan[group.name])
            assert (stored.codes == alone.codes).mean() < 0.95  # negative control
        rows = torch.from_numpy(read_again(stored)).chunk(len(group.weights))
        with torch.no_grad():
            for parameter, values in zip(group.weights, rows, strict=True):
                model.get_parameter(parameter).copy_(values)


@pytest.mark.parametrize("format_", [INT2, INT4], ids=str)
def test_less_is_lost_than_by_rounding_to_nearest(weights: StudentWeights, format_: Format) -> None:
    decoder = CalibratedDecoder(weights, SEQUENCES)
    sensitivity = Sensitivity(decoder, read_positions_per_sequence=99)
    plan = {group.name: format_ for group in weights.groups}

    def lost(solver: str) -> float:
        stored = solve(solver, weights, plan, decoder)  # type: ignore[arg-type]
        return sensitivity.loss({name: torch.from_numpy(read_again(found)) for name, found in stored.items()})

    assert lost("gptq") < 0.7 * lost("rtn")


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_architecture(variant: str, tmp_path: Path) -> None:
    """All groups have inputs, but for a table that is no head; and less is lost than by rounding to nearest."""
    student = read_weights(make_model(tmp_path, variant))
    decoder = CalibratedDecoder(student, [[*range(5, 60)], [*range(90, 40, -1)], [7, 7, 9, 80, 13]])
    states = decoder.layer_inputs()
    for group in student.groups:
        inputs = inputs_alone(decoder, states, group)
        assert (inputs is None) == (group.name == EMBEDDING and not student.anatomy.tied)
        assert inputs is None or inputs.shape == (110, group.shape[1])
    sensitivity = Sensitivity(decoder, read_positions_per_sequence=99)
    plan = {group.name: INT4 for group in student.groups}
    lost = {}
    for solver in ("rtn", "gptq"):
        stored = solve(solver, student, plan, decoder)  # type: ignore[arg-type]
        assert list(stored) == list(plan)
        lost[solver] = sensitivity.loss(
            {name: torch.from_numpy(read_again(one)) for name, one in stored.items()}
        )
    assert lost["gptq"] < 0.9 * lost["rtn"]


def test_sensitivity_is_of_the_solver(weights: StudentWeights) -> None:
    """From scratch: one group rounded for its fp32 inputs, all others as they were."""
    decoder = CalibratedDecoder(weights, SEQUENCES)
    sensitivity = Sensitivity(decoder)
    group = next(group for group in weights.groups if group.name == "layers.0.mlp.down")
    inputs = inputs_alone(decoder, decoder.layer_inputs(), group).double()
    moments = (inputs.T @ inputs / len(inputs)).numpy()
    values = dequantize(gptq(weights.matrices[group.name], INT4, moments))
    found = sensitivity.losses([group], weights, INT4, solver="gptq")
    assert found[group.name] == pytest.approx(sensitivity.loss({group.name: torch.from_numpy(values)}))
    assert found != sensitivity.losses([group], weights, INT4)
