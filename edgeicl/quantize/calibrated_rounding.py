"""GPTQ over a whole student: each group rounded with the inputs that it has at the calibration sequences.

For a final plan, groups are taken in the order of computation: a group's inputs come from the groups before it
as they are stored, which arXiv 2210.17323 does block by block. For importance a group is rounded alone, with
the inputs that it has in the fp32 student.

The embedding is read twice, as a table and as the head. GPTQ for the head's inputs puts errors into rows where
the head doesn't notice them, and the table does; dampening weighs the two, being what an error costs whatever
its direction. How much of it is best was measured (docs/results/solvers.md). The head's inputs are those in
fp32, as the table is needed before anything else can be computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from edgeicl.models.anatomy import EMBEDDING, WeightGroup
from edgeicl.numerics.affine import QuantizedMatrix
from edgeicl.numerics.gptq import DAMPENING, gptq
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.stored_weights import Floats, Quantizer, Stored, read_again, stored_matrix
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.quant_plan import Format

EMBEDDING_DAMPENING = 0.3


def rounded_in_order(
    weights: StudentWeights,
    plan: Mapping[str, Format],
    decoder: CalibratedDecoder,
    *,
    advance: Callable[[int], None] = lambda n: None,
) -> dict[str, Stored]:
    """Every group of the plan as it is stored; `advance(1)` after each.

    `decoder` is the student at the calibration sequences.
    """
    found: dict[str, Stored] = {}
    values: dict[str, Tensor] = {}

    def round_group(group: str, inputs: Tensor) -> None:
        found[group] = stored_matrix(weights.matrices[group], plan[group], for_inputs(group, inputs))
        values[group] = torch.from_numpy(read_again(found[group]))
        advance(1)

    round_group(EMBEDDING, decoder.head_inputs(decoder.layer_inputs()[-1]))
    hidden = decoder.embed(values)
    for index in range(decoder.layers):
        hidden = decoder.layer(index, hidden, values, before=round_group)
    return {group: found[group] for group in plan}


def inputs_alone(decoder: CalibratedDecoder, states: Sequence[Tensor], group: WeightGroup) -> Tensor:
    """Input rows [T, K] of the group in the fp32 student whose layers have the inputs `states`."""
    if group.layer is None:
        return decoder.head_inputs(states[-1])
    seen: dict[str, Tensor] = {}
    decoder.layer(group.layer, states[group.layer], before=seen.__setitem__)
    return seen[group.name]


def for_inputs(group: str, inputs: Tensor) -> Quantizer:
    """What rounds the group for its input rows [T, K]."""

    def quantizer(matrix: Floats, format_: Format) -> QuantizedMatrix:
        exact = inputs.double()
        moments = (exact.T @ exact / len(exact)).numpy()
        dampening = EMBEDDING_DAMPENING if group == EMBEDDING else DAMPENING
        return gptq(matrix, format_, moments, dampening=dampening)

    return quantizer
