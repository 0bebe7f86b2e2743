"""The student computed layer by layer, so that a change of one weight group costs only what follows it.

Plain torch over the groups' matrices. Sequences are laid end to end instead of being padded: everything but
attention is one row a token. What stands before every sequence comes first, and is computed once for all of
them. What an architecture does between attention and weights is its `Body`. Each is compared with transformers'
own model in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeicl.errors import DataError
from edgeicl.models.anatomy import EMBEDDING, HEAD
from edgeicl.quantize.attention import Attention
from edgeicl.quantize.bodies.body import ALL_ROWS, Rows
from edgeicl.quantize.bodies.table import BODIES
from edgeicl.quantize.input_steps import InputSteps
from edgeicl.quantize.known_layer import KnownLayer, KnownProduct
from edgeicl.quantize.rounded_inputs import Matrix, as_computed, product
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.quant_plan import Format

Listener = Callable[[str, Tensor], None]
"""Gets a weight group's name, and its input rows [T, K]."""
Cache = Callable[[int, Tensor], Tensor]
"""Layer, and its keys and values [T, 2 * kv heads * head size] -> what attention finds of them in the cache."""


class CalibratedDecoder:
    """The student and the token sequences it is run on.

    Notation: S sequences, P tokens of the prefix, T of the prefix and all sequences together, H hidden,
    V vocabulary, M read positions.

    Args:
        weights: The student.
        sequences: Token ids; at least one, none empty.
        prefix: What stands before each of them: token ids [P], or vectors [P, H].
        head_tokens: Tokens whose rows of the table are the head, never quantized; the whole table unless given.

    Raises:
        DataError: no sequences, or one that the model can't take.
    """

    def __init__(
        self,
        weights: StudentWeights,
        sequences: Sequence[Sequence[int]],
        prefix: NDArray[Any] | None = None,
        head_tokens: Sequence[int] | None = None,
    ) -> None:
        before = torch.zeros(0, dtype=torch.int64) if prefix is None else torch.from_numpy(prefix)
        anatomy = weights.anatomy
        positions = anatomy.positions - len(before)
        vocabulary = anatomy.vocabulary
        lengths = [len(sequence) for sequence in sequences]
        if not lengths or min(lengths) == 0 or max(lengths) > positions:
            raise DataError(
                f"calibration sequences have {sorted(set(lengths))} tokens; expected 1 to {positions} in each"
            )
        own = torch.tensor([token for sequence in sequences for token in sequence])
        self._vectors = before if before.ndim == 2 else torch.zeros(0, anatomy.embedding_width)
        self.tokens = own if before.ndim == 2 else torch.cat([before, own])
        if int(self.tokens.max()) >= vocabulary or int(self.tokens.min()) < 0:
            raise DataError(f"token {int(self.tokens.max())} is outside the vocabulary of {vocabulary}")
        self.prefix_tokens = len(before)
        self.lengths = [len(before), *lengths] if len(before) else lengths
        self.groups, self._rectified = weights.groups, anatomy.rectified
        self.layers = anatomy.layers
        self.kv_heads, self.head_size = anatomy.kv_heads, anatomy.head_size
        self._query_width = anatomy.heads * anatomy.head_size
        places = [torch.arange(len(before)), *(len(before) + torch.arange(length) for length in lengths)]
        self._matrices = weights.matrices
        self._biases = {name: torch.from_numpy(bias) for name, bias in weights.biases.items()}
        others = {name: torch.from_numpy(value) for name, value in weights.others.items()}
        self._body = BODIES[anatomy.model_type](anatomy, others, torch.cat(places))
        self._attend = Attention(anatomy, lengths, len(before))
        self._table = HEAD if HEAD in self._matrices else EMBEDDING  # what has a row for every token's logit
        self._label_head = None
        if head_tokens is not None:
            self._label_head = torch.from_numpy(self._matrices[EMBEDDING][list(head_tokens)])
        self.head = None if head_tokens is not None else EMBEDDING if anatomy.tied else HEAD

    def read_positions(self, per_sequence: int) -> Tensor:
        """Rows [M] of `per_sequence` tokens of each sequence, evenly spaced; its last token is one of them."""
        rows: list[int] = []
        start = self.prefix_tokens
        for length in self.lengths[1:] if self.prefix_tokens else self.lengths:
            count = min(per_sequence, length)
            rows += [start + (part + 1) * length // count - 1 for part in range(count)]
            start += length
        return torch.tensor(rows)

    @torch.inference_mode()
    def embed(
        self, replaced: Mapping[str, Matrix] | None = None, *, before: Listener = lambda group, inputs: None
    ) -> Tensor:
        """Input of the first layer, [T, H]; `before` as for `layer`."""
        table = self._matrix(EMBEDDING, replaced)
        assert isinstance(table, Tensor)  # no format of integer products fits it
        tokens = torch.cat([self._vectors, table[self.tokens]])
        return self._body.embed(tokens, partial(self._linear, replaced, before))

    @torch.inference_mode()
    def layer(
        self,
        index: int,
        hidden: Tensor,
        replaced: Mapping[str, Matrix] | None = None,
        *,
        before: Listener = lambda group, inputs: None,
        cache: Cache | None = None,
        rows: Rows = ALL_ROWS,
    ) -> Tensor:
        """Output [T, H] of one decoder layer for its input [T, H], or those `rows` of it.

        `before` gets the name and the input rows [T, K] of each group before it is computed; what it puts into
        `replaced` then counts.
        """

        def linear(name: str, inputs: Tensor) -> Tensor:
            return self._linear(replaced, before, f"layers.{index}.{name}", inputs)

        def attend(projected: Tensor) -> Tensor:
            if cache is None:
                return self._attend(projected)
            queries, others = projected.tensor_split([self._query_width], dim=-1)
            return self._attend(torch.cat([queries, cache(index, others)], dim=-1))

        return self._body.layer(index, hidden, linear, attend, rows)

    @torch.inference_mode()
    def known_layer(
        self, index: int, hidden: Tensor, *, rows: Rows = ALL_ROWS, moved_in: torch.dtype | None = None
    ) -> KnownLayer:
        """One layer at its input [T, H] with no group replaced; products of others in `moved_in`, if given."""
        known = KnownLayer(hidden, moved_in)

        def linear(name: str, inputs: Tensor) -> Tensor:
            group = f"layers.{index}.{name}"
            matrix = self._own_matrix(group)
            outputs = product(inputs, matrix, self._biases.get(group))
            known.keep(group, inputs, outputs, matrix)
            return outputs

        def attend(projected: Tensor) -> Tensor:
            known.attended = self._attend(projected)
            return known.attended

        self._body.layer(index, hidden, linear, attend, rows)
        return known

    @torch.inference_mode()
    def layer_beside(
        self,
        known: KnownLayer,
        index: int,
        hidden: Tensor,
        replaced: Mapping[str, Matrix],
        *,
        rows: Rows = ALL_ROWS,
    ) -> Tensor:
        """What `layer` gives, for an input [T, H] that is the known layer's or lies close to it.

        Nothing is computed again up to the first replaced group.
        """
        untouched = hidden is known.hidden

        def linear(name: str, inputs: Tensor) -> Tensor:
            nonlocal untouched
            group = f"layers.{index}.{name}"
            untouched = untouched and group not in replaced
            if untouched:
                return known.outputs[group]
            if group in known.products and group not in replaced:
                return known.products[group].moved_to(inputs)
            return product(inputs, self._matrix(group, replaced), self._biases.get(group))

        def attend(projected: Tensor) -> Tensor:
            return known.attended if untouched and known.attended is not None else self._attend(projected)

        return self._body.layer(index, hidden, linear, attend, rows)

    @torch.inference_mode()
    def logits(
        self, hidden: Tensor, replaced: Mapping[str, Matrix] | None = None, *, final_norm: bool = True
    ) -> Tensor:
        """[M, V] logits of rows [M, H] of a hidden state."""
        inputs = self.head_inputs(hidden, replaced, final_norm=final_norm)
        return product(inputs, self._matrix(self._table, replaced))

    def predictions(self, hidden: Tensor, replaced: Mapping[str, Matrix] | None = None) -> Tensor:
        """[M, V] logits of rows [M, H] of the last state, or [M, L] where the artifact has those alone."""
        if self._label_head is None:
            return self.logits(hidden, replaced)
        return F.linear(self.head_inputs(hidden, replaced), self._label_head)

    @torch.inference_mode()
    def known_head(self, hidden: Tensor, predictions: Tensor, moved_in: torch.dtype) -> KnownProduct:
        """The head's product, by its `predictions` of rows [M, H] of the last state, no group replaced."""
        table = self._own_matrix(self._table) if self._label_head is None else self._label_head
        return KnownProduct(self.head_inputs(hidden), predictions, table.to(moved_in))

    def predictions_beside(
        self, known: KnownProduct | None, hidden: Tensor, replaced: Mapping[str, Matrix]
    ) -> Tensor:
        """What `predictions` gives, for rows [M, H] close to those of the known head, if there is one."""
        if known is None or self.head in replaced:
            return self.predictions(hidden, replaced)
        return known.moved_to(self.head_inputs(hidden, replaced))

    @torch.inference_mode()
    def head_inputs(
        self,
        hidden: Tensor,
        replaced: Mapping[str, Matrix] | None = None,
        *,
        final_norm: bool = True,
        before: Listener = lambda group, inputs: None,
    ) -> Tensor:
        """[M, E] what the head reads for rows [M, H] of the last layer's output; `before` as for `layer`."""
        return self._body.finish(hidden, partial(self._linear, replaced, before), norm=final_norm)

    def last_output(self) -> Tensor:
        """The last layer's output [T, H] with no group replaced."""
        hidden = self.embed()
        for index in range(self.layers):
            hidden = self.layer(index, hidden)
        return hidden

    def layer_inputs(self) -> list[Tensor]:
        """Inputs of all layers and the last one's output, each [T, H], with no group replaced."""
        states = [self.embed()]
        for index in range(self.layers):
            states.append(self.layer(index, states[-1]))
        return states

    @cached_property
    def input_steps(self) -> dict[str, float]:
        """Group -> the one step that an integer product rounds all tokens' inputs in, where these are alike.

        Of the student as it is, whatever groups before this one become.
        """
        return self.input_steps_with(None)

    def input_steps_with(self, replaced: Mapping[str, Matrix] | None) -> dict[str, float]:
        """The same of the student with some groups replaced."""
        steps = InputSteps(self.prefix_tokens, self._rectified)
        hidden = self.embed(replaced, before=steps)
        for index in range(self.layers):
            hidden = self.layer(index, hidden, replaced, before=steps)
        inputs = self.head_inputs(hidden, replaced, before=steps)
        if self.head == HEAD:
            steps(HEAD, inputs)
        return steps.found()

    def matrix_of(self, group: str, values: NDArray[np.float32], format_: Format) -> Matrix:
        """The group's `values` [N, K], stored in the format and read again, as its kernel takes them."""
        step = self.input_steps.get(group) if format_.by_row else None
        return as_computed(values, format_, step, rectified=group in self._rectified)

    def _matrix(self, group: str, replaced: Mapping[str, Matrix] | None) -> Matrix:
        if replaced is not None and group in replaced:
            return replaced[group]
        return self._own_matrix(group)

    def _own_matrix(self, group: str) -> Tensor:
        return torch.from_numpy(self._matrices[group])

    def _linear(
        self, replaced: Mapping[str, Matrix] | None, before: Listener, group: str, rows: Tensor
    ) -> Tensor:
        before(group, rows)
        return product(rows, self._matrix(group, replaced), self._biases.get(group))
