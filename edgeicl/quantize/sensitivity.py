"""Measured sensitivity: how far the student's predictions move when one weight group is quantized.

The loss of a group in a format is KL(fp32 || quantized) in nats over all tokens that the artifact has logits
of, the mean over read positions of the calibration sequences, with that group quantized and all others in fp32.
The losses of a plan are added up as if groups didn't interact; what a whole plan really loses is measured by
`loss`.

The state before each layer is kept, so a change in layer i costs the layers from i on. Logits are computed at a
few positions of each sequence, the last one, where a label is read, and some before it; so is what follows
attention in the last layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from edgeicl.models.anatomy import WeightGroup
from edgeicl.quantize.bodies.body import ALL_ROWS
from edgeicl.quantize.decoder import Cache, CalibratedDecoder
from edgeicl.quantize.rounded_inputs import Matrix
from edgeicl.quantize.solver import SolverName, alone
from edgeicl.quantize.stored_weights import Floats, stored_values
from edgeicl.specs.quant_plan import Format

READ_POSITIONS_PER_SEQUENCE = 4


class Sensitivity:
    """The student at the calibration tokens, ready to be asked what a replaced weight group costs."""

    def __init__(
        self, decoder: CalibratedDecoder, *, read_positions_per_sequence: int = READ_POSITIONS_PER_SEQUENCE
    ) -> None:
        self._decoder = decoder
        self._rows = decoder.read_positions(read_positions_per_sequence)
        self._states = decoder.layer_inputs()
        self._first_layer = {group.name: group.layer for group in decoder.groups}
        last = max(decoder.layers - 1, 0)  # computed once more, at the same rows as with replaced groups
        reference = self._log_probabilities(self._states[last], last, {})
        self._probabilities = reference.exp()
        self._negative_entropy = (self._probabilities * reference).sum(-1)

    def loss(self, replaced: Mapping[str, Matrix], cache: Cache | None = None) -> float:
        """KL(fp32 || replaced) in nats, mean over the read positions, for matrices put in by group name.

        `cache`: what becomes of keys and values, if that too is another than in fp32.
        """
        start = min((self._first_layer[name] or 0 for name in replaced), default=self._decoder.layers)
        if cache is not None:
            start = 0
        if any(self._first_layer[name] is None for name in replaced):
            hidden = self._decoder.embed(replaced)
        else:
            hidden = self._states[start]
        other = self._log_probabilities(hidden, start, replaced, cache)
        return float((self._negative_entropy - (self._probabilities * other).sum(-1)).mean())

    def losses(
        self,
        groups: Iterable[WeightGroup],
        matrices: Mapping[str, Floats],
        format_: Format,
        *,
        solver: SolverName = "rtn",
        advance: Callable[[int], None] = lambda n: None,
    ) -> dict[str, float]:
        """Group -> loss in nats with that group alone stored in the format; `advance(1)` after each.

        fp32 loses nothing by definition.
        """
        found: dict[str, float] = {}
        for group in groups:
            if format_.bits == 32:
                found[group.name] = 0.0
            else:
                quantizer = alone(solver, group, self._decoder, self._states)
                stored = stored_values(matrices[group.name], format_, quantizer)
                found[group.name] = self.loss(
                    {group.name: self._decoder.matrix_of(group.name, stored, format_)}
                )
            advance(1)
        return found

    def _log_probabilities(
        self, hidden: Tensor, start: int, replaced: Mapping[str, Matrix], cache: Cache | None = None
    ) -> Tensor:
        """At the read positions [M, V], for the input [T, H] of layer `start`."""
        layers = self._decoder.layers
        for index in range(start, layers):
            rows = self._rows if index == layers - 1 else ALL_ROWS
            hidden = self._decoder.layer(index, hidden, replaced, cache=cache, rows=rows)
        if start == layers:
            hidden = hidden[self._rows]
        # fp64: an 8-bit group moves a prediction by 1e-6 nats, which fp32 sums over a vocabulary would hide
        return torch.log_softmax(self._decoder.predictions(hidden, replaced).double(), dim=-1)
