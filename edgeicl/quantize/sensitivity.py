"""Measured sensitivity: how far the student's predictions move when one weight group is quantized.

The loss of a group in a format is KL(fp32 || quantized) in nats over all tokens that the artifact has logits
of, the mean over read positions of the calibration sequences, with that group quantized and all others in fp32.
The losses of a plan are added up as if groups didn't interact; what a whole plan really loses is measured by
`loss`.

The state before each layer is kept, so a change in layer i costs the layers from i on. All groups, or as many
as fit in 256 MB, go through a layer before any goes through the next: what it computes with none replaced is
computed once, and of each only how it differs (`known_layer`). Logits are computed at a few positions of each
sequence, the last one, where a label is read, and some before it; so is what follows attention in the last
layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from edgeicl.models.anatomy import HEAD, PROJECT_OUT, WeightGroup
from edgeicl.quantize.bodies.body import ALL_ROWS, Rows
from edgeicl.quantize.decoder import Cache, CalibratedDecoder
from edgeicl.quantize.rounded_inputs import Matrix
from edgeicl.quantize.solver import SolverName, alone
from edgeicl.quantize.stored_weights import read_again
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.quant_plan import Format

READ_POSITIONS_PER_SEQUENCE = 4
_ROWS_AT_ONCE = 8  # of logits, so that they stay in the processor's cache
_EMBEDDING = -1
_STATES_AT_ONCE_BYTES = 256 << 20  # of groups on their way through the layers
_LARGEST_EXPONENT = 40.0  # beyond it the probabilities that it is multiplied with may be none in fp32


class Sensitivity:
    """The student at the calibration tokens, ready to be asked what a replaced weight group costs.

    `states` are the decoder's `layer_inputs`. `moved_in`: what one group alone moves is computed in this type,
    of a student with layers; in fp32, as everything else, unless given.
    """

    def __init__(
        self,
        decoder: CalibratedDecoder,
        *,
        read_positions_per_sequence: int = READ_POSITIONS_PER_SEQUENCE,
        moved_in: torch.dtype | None = None,
    ) -> None:
        self._decoder = decoder
        self._moved_in = moved_in if decoder.layers else None
        self._rows = decoder.read_positions(read_positions_per_sequence)
        self.states = decoder.layer_inputs()
        self._first_layer = {group.name: _first_layer(group, decoder.layers) for group in decoder.groups}
        self._last_rows = self.states[-1][self._rows]
        if decoder.layers:  # computed once more, at the same rows as with replaced groups
            last = decoder.layers - 1
            self._last_rows = decoder.layer(last, self.states[last], rows=self._rows)
        self._reference = decoder.predictions(self._last_rows)
        self._probabilities = self._reference.double().softmax(dim=-1).float()

    def loss(self, replaced: Mapping[str, Matrix], cache: Cache | None = None) -> float:
        """KL(fp32 || replaced) in nats, mean over the read positions, for matrices put in by group name.

        `cache`: what becomes of keys and values, if that too is another than in fp32.
        """
        start = min((self._first_layer[name] for name in replaced), default=self._decoder.layers)
        start = 0 if cache is not None else max(start, 0)
        return self._divergence(self._logits(self._state_before(start, replaced), start, replaced, cache))

    def losses(
        self,
        groups: Sequence[WeightGroup],
        weights: StudentWeights,
        format_: Format,
        *,
        solver: SolverName = "rtn",
        advance: Callable[[int], None] = lambda n: None,
    ) -> dict[str, float]:
        """Group -> loss in nats with that group alone stored in the format; `advance` after each of `passes`.

        fp32 loses nothing by definition.
        """
        if format_.bits == 32:
            advance(self.passes(groups))
            return {group.name: 0.0 for group in groups}

        def stored(group: WeightGroup) -> Matrix:
            values = read_again(alone(solver, weights, group, format_, self._decoder, self.states))
            return self._decoder.matrix_of(group.name, values, format_)

        found: dict[str, float] = {}
        in_order = sorted(groups, key=lambda group: self._first_layer[group.name])
        at_once = max(1, _STATES_AT_ONCE_BYTES // self.states[0].nbytes)
        for first in range(0, len(in_order), at_once):
            found |= dict(self._each_alone(in_order[first : first + at_once], stored, advance))
        return {group.name: found[group.name] for group in groups}

    def passes(self, groups: Sequence[WeightGroup]) -> int:
        """How many layers, and heads, are computed for the losses of these groups in one format."""
        return sum(self._decoder.layers + 1 - max(self._first_layer[group.name], 0) for group in groups)

    def _each_alone(
        self,
        groups: Sequence[WeightGroup],
        stored: Callable[[WeightGroup], Matrix],
        advance: Callable[[int], None],
    ) -> Iterator[tuple[str, float]]:
        """The loss of each of the groups, which are in the order of their first layers."""
        replaced: dict[str, dict[str, Matrix]] = {}
        hidden: dict[str, Tensor] = {}
        layers = self._decoder.layers

        def begin(group: WeightGroup, layer: int) -> None:
            replaced[group.name] = {group.name: stored(group)}
            hidden[group.name] = self._state_before(layer, replaced[group.name])

        for index in range(max(self._first_layer[groups[0].name], 0), layers):
            rows = self._rows_of(index)
            known = self._decoder.known_layer(index, self.states[index], rows=rows, moved_in=self._moved_in)
            for group in groups:
                name = group.name
                if self._first_layer[name] > index:
                    break
                if name not in hidden:
                    begin(group, index)
                hidden[name] = self._decoder.layer_beside(known, index, hidden[name], replaced[name], rows=rows)
                if group.layer is not None:  # read in no other
                    replaced[name] = {}
                advance(1)
            del known  # before the next layer's
        head = None
        if self._moved_in is not None:
            head = self._decoder.known_head(self._last_rows, self._reference, self._moved_in)
        for group in groups:
            if group.name not in hidden:
                begin(group, layers)
            logits = self._decoder.predictions_beside(head, hidden.pop(group.name), replaced.pop(group.name))
            yield group.name, self._divergence(logits)
            advance(1)

    def _logits(
        self, hidden: Tensor, start: int, replaced: Mapping[str, Matrix], cache: Cache | None = None
    ) -> Tensor:
        """At the read positions [M, V], for the input of layer `start`."""
        for index in range(start, self._decoder.layers):
            hidden = self._decoder.layer(index, hidden, replaced, cache=cache, rows=self._rows_of(index))
        return self._decoder.predictions(hidden, replaced)

    def _state_before(self, layer: int, replaced: Mapping[str, Matrix]) -> Tensor:
        """The layer's input [T, H], which these groups change in none before it; [M, H] behind the last one."""
        behind = layer == self._decoder.layers
        if any(self._first_layer[name] == _EMBEDDING for name in replaced):
            state = self._decoder.embed(replaced)
            return state[self._rows] if behind else state
        return self._last_rows if behind else self.states[layer]

    def _rows_of(self, layer: int) -> Rows:
        return self._rows if layer == self._decoder.layers - 1 else ALL_ROWS

    def _divergence(self, logits: Tensor) -> float:
        return float(divergence(self._probabilities, self._reference, logits).mean())


def _first_layer(group: WeightGroup, layers: int) -> int:
    """The first layer whose output depends on the group; `_EMBEDDING`: its input does."""
    if group.layer is not None:
        return group.layer
    return layers if group.name in (HEAD, PROJECT_OUT) else _EMBEDDING


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
