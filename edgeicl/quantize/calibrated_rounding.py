"""GPTQ over a whole student: each group rounded with the inputs that it has at the calibration sequences.

For a final plan, groups are taken in the order of computation: a group's inputs come from the groups before it
as they are stored, which arXiv 2210.17323 does block by block. For importance a group is rounded alone, with
the inputs that it has in the fp32 student.

A tied embedding is read twice, as a table and as the head. GPTQ for the head's inputs puts errors into rows
where the head doesn't notice them, and the table does; dampening weighs the two, being what an error costs
whatever its direction. How much of it is best was measured (docs/results/solvers.md). The head's inputs are
those in fp32, as the table is needed before anything else can be computed. A table that is no head is rounded
to nearest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from edgeicl.models.anatomy import EMBEDDING, HEAD, WeightGroup
from edgeicl.numerics.affine import QuantizedMatrix, round_to_nearest
from edgeicl.numerics.gptq import DAMPENING, gptq
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.rounded_inputs import Matrix
from edgeicl.quantize.stored_weights import Floats, Quantizer, Stored, read_again, stored_matrix
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.quant_plan import Format

EMBEDDING_DAMPENING = 0.3


def rounded_in_order(
    weights: StudentWeights, plan: Mapping[str, Format], decoder: CalibratedDecoder
) -> Iterator[tuple[str, Stored]]:
    """Every group of the plan as it is stored, in the order of computation; of a layer all at once.

    `decoder` is the student at the calibration sequences.
    """
    found: dict[str, Stored] = {}
    values: dict[str, Matrix] = {}

    def round_group(group: str, inputs: Tensor | None) -> None:
        found[group] = stored_matrix(weights.matrices[group], plan[group], for_inputs(group, inputs))
        values[group] = decoder.matrix_of(group, read_again(found[group]), plan[group])

    def done() -> Iterator[tuple[str, Stored]]:
        """What no later computation reads."""
        values.clear()
        while found:
            yield found.popitem()

    table_is_head = decoder.head == EMBEDDING
    round_group(EMBEDDING, decoder.head_inputs(decoder.last_output()) if table_is_head else None)
    hidden = decoder.embed(values, before=round_group)
    yield from done()
    for index in range(decoder.layers):
        hidden = decoder.layer(index, hidden, values, before=round_group)
        yield from done()
    inputs = decoder.head_inputs(hidden, values, before=round_group)
    if decoder.head == HEAD:
        round_group(HEAD, inputs)
    yield from done()


def inputs_alone(decoder: CalibratedDecoder, states: Sequence[Tensor], group: WeightGroup) -> Tensor | None:
    """Input rows [T, K] of the group in the fp32 student whose layers have the inputs `states`.

    None for a table that tokens are merely looked up in.
    """
    seen: dict[str, Tensor] = {}
    if group.layer is not None:
        decoder.layer(group.layer, states[group.layer], before=seen.__setitem__)
        return seen[group.name]
    decoder.embed(before=seen.__setitem__)
    inputs = decoder.head_inputs(states[-1], before=seen.__setitem__)
    return inputs if group.name == decoder.head else seen.get(group.name)


def for_inputs(group: str, inputs: Tensor | None) -> Quantizer:
    """What rounds the group for its input rows [T, K]; to nearest where there are none."""
    if inputs is None:
        return round_to_nearest

    @cache
    def moments() -> NDArray[np.float64]:
        exact = inputs.double()
        found: NDArray[np.float64] = (exact.T @ exact / len(exact)).numpy()
        return found

    def quantizer(matrix: Floats, format_: Format) -> QuantizedMatrix:
        dampening = EMBEDDING_DAMPENING if group == EMBEDDING else DAMPENING
        return gptq(matrix, format_, moments(), dampening=dampening)

    return quantizer
