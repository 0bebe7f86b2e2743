"""The student computed layer by layer, so that a change of one weight group costs only what follows it.

Plain torch over the groups' matrices. Sequences are laid end to end instead of being padded: everything but
attention is one row a token. What stands before every sequence comes first, and is computed once for all of
them. It is compared with transformers' own OPT in the tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeicl.errors import DataError
from edgeicl.models.anatomy import DECODER, EMBEDDING
from edgeicl.quantize.student_weights import StudentWeights

_POSITION_OFFSET = 2  # OPT's position table starts with two unused rows


class CalibratedDecoder:
    """The student and the token sequences it is run on.

    Notation: S sequences, P tokens of the prefix, T of the prefix and all sequences together, H hidden,
    V vocabulary, M read positions.

    Args:
        weights: The student.
        sequences: Token ids; at least one, none empty.
        prefix: What stands before each of them: token ids [P], or vectors [P, H].

    Raises:
        DataError: no sequences, or one that the model can't take.
    """

    def __init__(
        self,
        weights: StudentWeights,
        sequences: Sequence[Sequence[int]],
        prefix: NDArray[Any] | None = None,
    ) -> None:
        before = torch.zeros(0, dtype=torch.int64) if prefix is None else torch.from_numpy(prefix)
        positions = int(weights.config["max_position_embeddings"]) - len(before)
        vocabulary = int(weights.config["vocab_size"])
        lengths = [len(sequence) for sequence in sequences]
        if not lengths or min(lengths) == 0 or max(lengths) > positions:
            raise DataError(
                f"calibration sequences have {sorted(set(lengths))} tokens; expected 1 to {positions} in each"
            )
        own = torch.tensor([token for sequence in sequences for token in sequence])
        self._vectors = before if before.ndim == 2 else torch.zeros(0, int(weights.config["hidden_size"]))
        self.tokens = own if before.ndim == 2 else torch.cat([before, own])
        if int(self.tokens.max()) >= vocabulary or int(self.tokens.min()) < 0:
            raise DataError(f"token {int(self.tokens.max())} is outside the vocabulary of {vocabulary}")
        self.prefix_tokens = len(before)
        self.lengths = [len(before), *lengths] if len(before) else lengths
        self.groups = weights.groups
        self.layers = int(weights.config["num_hidden_layers"])
        self._heads = int(weights.config["num_attention_heads"])
        places = [torch.arange(len(before)), *(len(before) + torch.arange(length) for length in lengths)]
        self._positions = torch.cat(places) + _POSITION_OFFSET
        self._matrices = {name: torch.from_numpy(matrix) for name, matrix in weights.matrices.items()}
        self._biases = {name: torch.from_numpy(bias) for name, bias in weights.biases.items()}
        self._others = {name: torch.from_numpy(value) for name, value in weights.others.items()}

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
    def embed(self, replaced: Mapping[str, Tensor] | None = None) -> Tensor:
        """Input of the first layer, [T, H]."""
        table = self._matrix(EMBEDDING, replaced)
        tokens = torch.cat([self._vectors, table[self.tokens]])
        return tokens + self._others[f"{DECODER}.embed_positions.weight"][self._positions]

    @torch.inference_mode()
    def layer(
        self,
        index: int,
        hidden: Tensor,
        replaced: Mapping[str, Tensor] | None = None,
        *,
        before: Callable[[str, Tensor], None] = lambda group, inputs: None,
    ) -> Tensor:
        """Output of one decoder layer for its input [T, H].

        `before` gets the name and the input rows [T, K] of each group before it is computed; what it puts into
        `replaced` then counts.
        """

        def linear(name: str, rows: Tensor) -> Tensor:
            group = f"layers.{index}.{name}"
            before(group, rows)
            return F.linear(rows, self._matrix(group, replaced), self._biases.get(group))

        at = f"{DECODER}.layers.{index}"
        projected = linear("attention.qkv", self._norm(f"{at}.self_attn_layer_norm", hidden))
        hidden = hidden + linear("attention.output", self._attend(projected))
        inner = F.relu(linear("mlp.up", self._norm(f"{at}.final_layer_norm", hidden)))
        return hidden + linear("mlp.down", inner)

    @torch.inference_mode()
    def logits(
        self, hidden: Tensor, replaced: Mapping[str, Tensor] | None = None, *, final_norm: bool = True
    ) -> Tensor:
        """[M, V] logits of rows [M, H] of a hidden state."""
        if final_norm:
            hidden = self.head_inputs(hidden)
        return F.linear(hidden, self._matrix(EMBEDDING, replaced))

    @torch.inference_mode()
    def head_inputs(self, hidden: Tensor) -> Tensor:
        """Input rows [M, H] of the head for rows of the last layer's output."""
        return self._norm(f"{DECODER}.final_layer_norm", hidden)

    def layer_inputs(self) -> list[Tensor]:
        """Inputs of all layers and the last one's output, each [T, H], with no group replaced."""
        states = [self.embed()]
        for index in range(self.layers):
            states.append(self.layer(index, states[-1]))
        return states

    def _matrix(self, group: str, replaced: Mapping[str, Tensor] | None) -> Tensor:
        return replaced[group] if replaced is not None and group in replaced else self._matrices[group]

    def _norm(self, name: str, hidden: Tensor) -> Tensor:
        weight, bias = self._others[f"{name}.weight"], self._others[f"{name}.bias"]
        return F.layer_norm(hidden, (hidden.shape[-1],), weight, bias, eps=1e-5)

    def _attend(self, projected: Tensor) -> Tensor:
        outputs = []
        for number, rows in enumerate(torch.split(projected, self.lengths)):
            before = projected[: self.prefix_tokens if number else 0]
            # [length, 3 * H] -> three of [1, heads, length, H / heads]
            query, key, value = (
                part.view(len(part), self._heads, -1).transpose(0, 1)[None]
                for part in torch.cat([before, rows]).chunk(3, dim=-1)
            )
            seen = torch.ones(len(rows), len(before) + len(rows), dtype=torch.bool).tril(len(before))
            query = query[:, :, len(before) :]
            attended = F.scaled_dot_product_attention(query, key, value, attn_mask=seen)
            outputs.append(attended[0].transpose(0, 1).reshape(len(rows), -1))
        return torch.cat(outputs)
