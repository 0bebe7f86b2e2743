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
from edgeicl.quantize.stored_weights import read_again
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.quant_plan import Format

READ_POSITIONS_PER_SEQUENCE = 4
_ROWS_AT_ONCE = 8  # of logits, so that they stay in the processor's cache
_LARGEST_EXPONENT = 40.0  # beyond it the probabilities that it is multiplied with may be none in fp32


class Sensitivity:
    """The student at the calibration tokens, ready to be asked what a replaced weight group costs.

    `states` are the decoder's `layer_inputs`.
    """

    def __init__(
        self, decoder: CalibratedDecoder, *, read_positions_per_sequence: int = READ_POSITIONS_PER_SEQUENCE
    ) -> None:
        self._decoder = decoder
        self._rows = decoder.read_positions(read_positions_per_sequence)
        self.states = decoder.layer_inputs()
        self._known: tuple[int, dict[str, Tensor]] = (-1, {})
        self._first_layer = {group.name: group.layer for group in decoder.groups}
        last = max(decoder.layers - 1, 0)  # computed once more, at the same rows as with replaced groups
        self._reference = self._logits(self.states[last], last, {})
        self._probabilities = self._reference.double().softmax(dim=-1).float()

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
            hidden = self.states[start]
        other = self._logits(hidden, start, replaced, cache)
        return float(divergence(self._probabilities, self._reference, other).mean())

    def losses(
        self,
        groups: Iterable[WeightGroup],
        weights: StudentWeights,
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
                stored = alone(solver, weights, group, format_, self._decoder, self.states)
                matrix = self._decoder.matrix_of(group.name, read_again(stored), format_)
                found[group.name] = self.loss({group.name: matrix})
            advance(1)
        self._known = (-1, {})
        return found

    def _logits(
        self, hidden: Tensor, start: int, replaced: Mapping[str, Matrix], cache: Cache | None = None
    ) -> Tensor:
        """At the read positions [M, V], for the input [T, H] of layer `start`."""
        layers = self._decoder.layers
        for index in range(start, layers):
            rows = self._rows if index == layers - 1 else ALL_ROWS
            known = self._known_in(index) if hidden is self.states[index] else None
            hidden = self._decoder.layer(index, hidden, replaced, cache=cache, rows=rows, known=known)
        if start == layers:
            hidden = hidden[self._rows]
        return self._decoder.predictions(hidden, replaced)

    def _known_in(self, layer: int) -> dict[str, Tensor]:
        """What is found in a layer before a group is replaced; of one layer at a time, the last asked for."""
        if self._known[0] != layer:
            self._known = (layer, {})
        return self._known[1]


def divergence(probabilities: Tensor, logits: Tensor, other: Tensor) -> Tensor:
    """KL(p || q) in nats [M], of `probabilities` p [M, V] with their `logits`, and of q by its logits, `other`.

    With d what q's logits lie below p's, less its mean under p, KL = log(1 + sum p (d + e^-d - 1)), whose terms
    are as small as the difference is: an 8-bit group moves a prediction by 1e-6 nats, which differences of
    logarithms hide in fp32.
    """
    found = []
    parts = (torch.split(tensor, _ROWS_AT_ONCE) for tensor in (probabilities, logits, other))
    for weight, own, changed in zip(*parts, strict=True):
        below = own - changed
        below -= (weight * below).sum(-1, keepdim=True)
        if float(below.min()) < -_LARGEST_EXPONENT:
            apart = own.double().log_softmax(-1) - changed.double().log_softmax(-1)
            found.append((weight * apart).sum(-1))
        else:
            found.append(torch.log1p((weight * torch.expm1(-below).add_(below)).sum(-1).double()))
    return torch.cat(found)
