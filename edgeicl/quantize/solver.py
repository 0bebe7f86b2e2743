"""Solvers: how the weights of a plan become codes.

- rtn: to the nearest level, each block's scale by least squared error (`numerics.affine`).
- hqq: half-quadratic quantization (`numerics.hqq`).
- gptq: for the inputs that each group has at the calibration sequences (`calibrated_rounding`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from torch import Tensor

from edgeicl.models.anatomy import WeightGroup
from edgeicl.numerics.affine import round_to_nearest
from edgeicl.numerics.hqq import half_quadratic
from edgeicl.quantize.calibrated_rounding import for_inputs, inputs_alone, rounded_in_order
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.stored_weights import Quantizer, Stored, stored_matrix
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.quant_plan import Format

SolverName = Literal["rtn", "hqq", "gptq"]

# The solvers that round a group without regard to its inputs, and so to the other groups.
EACH_ALONE: dict[str, Quantizer] = {"rtn": round_to_nearest, "hqq": half_quadratic}


def solve(
    solver: SolverName, weights: StudentWeights, plan: Mapping[str, Format], decoder: CalibratedDecoder
) -> dict[str, Stored]:
    """Every group of the plan as it is stored. `decoder` is the student at the calibration sequences."""
    found = dict(solved(solver, weights, plan, decoder))
    return {group: found[group] for group in plan}


def solved(
    solver: SolverName, weights: StudentWeights, plan: Mapping[str, Format], decoder: CalibratedDecoder
) -> Iterator[tuple[str, Stored]]:
    """What `solve` gives one group after the other, in an order of its own, so that none needs to be kept."""
    if solver == "gptq":
        yield from rounded_in_order(weights, plan, decoder)
        return
    for group, format_ in plan.items():
        yield group, _each_alone(solver, weights, group, format_)


def alone(
    solver: SolverName,
    weights: StudentWeights,
    group: WeightGroup,
    format_: Format,
    decoder: CalibratedDecoder,
    states: Sequence[Tensor],
) -> Stored:
    """The group as it is stored while all others are in fp32; `states` are `decoder.layer_inputs()`."""
    if solver == "gptq":
        inputs = inputs_alone(decoder, states, group)
        return stored_matrix(weights.matrices[group.name], format_, for_inputs(group.name, inputs))
    return _each_alone(solver, weights, group.name, format_)


def _each_alone(solver: SolverName, weights: StudentWeights, group: str, format_: Format) -> Stored:
    if not format_.quantized:
        return stored_matrix(weights.matrices[group], format_)
    quantizer = EACH_ALONE[solver]
    return weights.rounded((solver, group, format_), lambda: quantizer(weights.matrices[group], format_))


def knowing_inputs(solver: SolverName, group: str, inputs: Tensor | None) -> Quantizer:
    """What rounds the group, whose input rows are [T, K]; None: a table that tokens are merely looked up in."""
    return for_inputs(group, inputs) if solver == "gptq" else EACH_ALONE[solver]
