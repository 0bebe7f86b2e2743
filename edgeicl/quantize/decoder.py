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
from edgeicl.quantize.bodies.body import ALL_ROWS, Rows
from edgeicl.quantize.bodies.table import BODIES
from edgeicl.quantize.input_steps import InputSteps
from edgeicl.quantize.rounded_inputs import Matrix, as_computed, product
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.quant_plan import Format

_ATTENDED_AT_ONCE = 8  # sequences of about the same length, so that little is padded
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
        self._heads, self.kv_heads, self.head_size = anatomy.heads, anatomy.kv_heads, anatomy.head_size
        places = [torch.arange(len(before)), *(len(before) + torch.arange(length) for length in lengths)]
        self._matrices = weights.matrices
        self._biases = {name: torch.from_numpy(bias) for name, bias in weights.biases.items()}
        others = {name: torch.from_numpy(value) for name, value in weights.others.items()}
        self._body = BODIES[anatomy.model_type](anatomy, others, torch.cat(places))
        self._batches, self._places = _by_length(lengths, len(before))
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
        known: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Output [T, H] of one decoder layer for its input [T, H], or those `rows` of it.

        `before` gets the name and the input rows [T, K] of each group before it is computed; what it puts into
        `replaced` then counts. `known` has what was found in this layer, at this input and these rows, before
        any group was replaced: it isn't computed again (nor does `before` hear of it), and what is found so is
        added.
        """
        queries = self._heads * self.head_size
        untouched = known is not None and cache is None

        def once(name: str, compute: Callable[[], Tensor]) -> Tensor:
            if not untouched or known is None:
                return compute()
            if name not in known:
                known[name] = compute()
            return known[name]

        def linear(name: str, rows: Tensor) -> Tensor:
            nonlocal untouched
            group = f"layers.{index}.{name}"
            untouched = untouched and group not in (replaced or {})
            return once(group, lambda: self._linear(replaced, before, group, rows))

        def attend(projected: Tensor) -> Tensor:
            if cache is None:
                return once("attended", lambda: self._attend(projected))
            kept = cache(index, projected[:, queries:])
            return self._attend(torch.cat([projected[:, :queries], kept], dim=-1))

        return self._body.layer(index, hidden, linear, attend, rows)

    @torch.inference_mode()
    def logits(
        self, hidden: Tensor, replaced: Mapping[str, Matrix] | None = None, *, final_norm: bool = True
    ) -> Tensor:
        """[M, V] logits of rows [M, H] of a hidden state."""
        inputs = self.head_inputs(hidden, replaced, final_norm=final_norm)
        return product(inputs, self._matrix(EMBEDDING if HEAD not in self._matrices else HEAD, replaced))

    def predictions(self, hidden: Tensor, replaced: Mapping[str, Matrix] | None = None) -> Tensor:
        """[M, V] logits of rows [M, H] of the last state, or [M, L] where the artifact has those alone."""
        if self._label_head is None:
            return self.logits(hidden, replaced)
        return F.linear(self.head_inputs(hidden, replaced), self._label_head)

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
        return torch.from_numpy(self._matrices[group])

    def _linear(
        self, replaced: Mapping[str, Matrix] | None, before: Listener, group: str, rows: Tensor
    ) -> Tensor:
        before(group, rows)
        return product(rows, self._matrix(group, replaced), self._biases.get(group))

    def _attend(self, projected: Tensor) -> Tensor:
        """What the heads find, [T, heads * head size], for queries, keys and values laid end to end."""
        before = projected[: self.prefix_tokens]
        parts = [self._attend_to(projected[rows], before).flatten(0, 1) for rows in self._batches]
        own = torch.cat(parts)[self._places]
        return torch.cat([self._attend_to(before[None], before[:0])[0], own]) if len(before) else own

    def _attend_to(self, rows: Tensor, before: Tensor) -> Tensor:
        """The same for sequences [S, L, ...] that are padded at their ends, behind `before` [P, ...]."""
        count, length = rows.shape[:2]
        queries = self._heads * self.head_size
        all_rows = torch.cat([before.expand(count, -1, -1), rows], dim=1) if len(before) else rows
        query, key, value = (
            part.reshape(*part.shape[:2], -1, self.head_size).transpose(1, 2)  # [S, heads, tokens, head size]
            for part in (rows[..., :queries], *all_rows[..., queries:].chunk(2, dim=-1))
        )
        seen = None
        if len(before):
            seen = torch.ones(length, len(before) + length, dtype=torch.bool).tril(len(before))
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=seen, is_causal=seen is None, enable_gqa=self.kv_heads < self._heads
        )
        return attended.transpose(1, 2).flatten(2)


def _by_length(lengths: Sequence[int], before: int) -> tuple[list[Tensor], Tensor]:
    """Batches of sequences that lie end to end behind `before` rows: the rows [S, L] of each, and a way back.

    A shorter sequence is padded with its last row. What is found for all batches, laid end to end, has each
    sequence's own tokens at the places [T] of the second.
    """
    starts = before + np.cumsum([0, *lengths[:-1]])
    order = np.argsort(lengths, kind="stable")
    batches: list[Tensor] = []
    places: dict[int, NDArray[np.int64]] = {}
    laid = 0
    for first in range(0, len(order), _ATTENDED_AT_ONCE):
        chosen = order[first : first + _ATTENDED_AT_ONCE]
        longest = max(lengths[number] for number in chosen)
        offsets = [np.minimum(np.arange(longest), lengths[number] - 1) for number in chosen]
        batches.append(torch.from_numpy(starts[chosen][:, None] + np.stack(offsets)))
        for number in chosen:
            places[number] = laid + np.arange(lengths[number])
            laid += longest
    return batches, torch.from_numpy(np.concatenate([places[number] for number in range(len(lengths))]))
