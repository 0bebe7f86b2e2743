"""A student whose weights are stored in the formats of a plan whenever it computes, and the one it came from.

Both are transformers' own model with other weights put in. Everything that a format rounds is trained, tied
embedding and head included, and what is stored in fp32 beside the groups: biases, norms, positions. Weights
that the plan leaves in floating point, and the labels' rows of a head of labels alone, stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeicl.models.anatomy import EMBEDDING, HEAD
from edgeicl.numerics.affine import QuantizedMatrix
from edgeicl.numerics.padding import right_padded
from edgeicl.quantize.fake_quantization import FakeQuantized
from edgeicl.quantize.stored_weights import Stored, read_again
from edgeicl.quantize.student_weights import Floats, StudentWeights

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_SLOW = 0.1
"""Learning rate of scales, biases and norms, as a share of that of weights in units of their scales."""


@dataclass(frozen=True)
class Logits:
    """[B, T, C] of B rows, of which `lengths` [B] tokens each are real; C as in `StudentInTraining.columns`."""

    values: Tensor
    lengths: Tensor

    @property
    def real(self) -> Tensor:
        """[B, T]: where a row has a token."""
        places = torch.arange(self.values.shape[1], device=self.values.device)
        return places < self.lengths[:, None]

    def from_end(self, count: int) -> Tensor:
        """[B, C] at the token that is `count` before the last of each row."""
        rows = torch.arange(len(self.lengths), device=self.values.device)
        return self.values[rows, self.lengths - 1 - count]


class _Vector:
    """A parameter that is stored in fp32, trained in units of its root mean square."""

    def __init__(self, values: Floats, device: torch.device) -> None:
        self._start = torch.from_numpy(values).to(device)
        self._unit = float(self._start.square().mean().sqrt()) or 1.0
        self.change = torch.zeros_like(self._start).requires_grad_()

    def values(self) -> Tensor:
        return self._start + self._unit * self.change


class StudentInTraining:
    """The student as a plan stores it, ready to be trained.

    Args:
        model: Computes; its own weights are those of the exact student.
        weights: The exact student, taken apart.
        stored: Every group as the plan stores it: where training starts.
        head_tokens: Tokens whose rows of the exact table are the head; the whole table or head unless given.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        weights: StudentWeights,
        stored: Mapping[str, Stored],
        *,
        head_tokens: Sequence[int] | None = None,
    ) -> None:
        model.requires_grad_(False)
        self.device = model.device
        self.columns = {token: at for at, token in enumerate(head_tokens)} if head_tokens is not None else None
        """Token -> its place in the logits; None: the whole vocabulary."""
        self._model = model
        self._weights, self._stored = weights, dict(stored)
        self._label_head = None
        if head_tokens is not None:
            self._label_head = model.get_input_embeddings().weight[list(head_tokens)]
        self._rounded = {
            name: FakeQuantized(weights.matrices[name], matrix, device=self.device)
            for name, matrix in stored.items()
            if isinstance(matrix, QuantizedMatrix)
        }
        self._kept = {
            name: torch.from_numpy(read_again(matrix)).to(self.device)
            for name, matrix in stored.items()
            if name not in self._rounded
        }
        self._biases = {name: _Vector(values, self.device) for name, values in weights.biases.items()}
        self._others = {name: _Vector(values, self.device) for name, values in weights.others.items()}

    def parameters(self, learning_rate: float) -> list[dict[str, Any]]:
        """What an optimizer changes, with the learning rate of each."""
        rounded = self._rounded.values()
        slow = [one.exponents for one in rounded]
        slow += [vector.change for vector in (*self._biases.values(), *self._others.values())]
        return [
            {"params": [one.weights for one in rounded], "lr": learning_rate},
            {"params": slow, "lr": _SLOW * learning_rate},
        ]

    def logits(self, rows: Sequence[Sequence[int]], before: NDArray[Any] | None = None) -> Logits:
        """Of the student as stored; `before`, token ids [P] or vectors [P, H], stands before every row."""
        matrices = self._kept | {name: one.values() for name, one in self._rounded.items()}
        parameters = {name: vector.values() for name, vector in self._others.items()}
        for group in self._weights.groups:
            for name, part in zip(
                group.weights, torch.split(matrices[group.name], list(group.parts)), strict=True
            ):
                parameters[name] = part.T if group.transposed else part
            if group.biases:
                stacked = self._biases[group.name].values()
                parameters |= dict(zip(group.biases, torch.split(stacked, list(group.parts)), strict=True))
        table = matrices[EMBEDDING]
        return self._computed(parameters, table, matrices.get(HEAD, table), rows, before)

    @torch.no_grad()
    def exact_logits(self, rows: Sequence[Sequence[int]], before: NDArray[Any] | None = None) -> Logits:
        """Of the student before it was quantized."""
        table, head = (part.weight for part in (self._model.get_input_embeddings(), self._model.lm_head))
        return self._computed({}, table, head, rows, before)

    @torch.no_grad()
    def result(self) -> tuple[StudentWeights, dict[str, Stored]]:
        """Biases and other parameters (in place of the student's), and every group, as `logits` takes them."""
        changed = replace(
            self._weights,
            biases={name: vector.values().cpu().numpy() for name, vector in self._biases.items()},
            others={name: vector.values().cpu().numpy() for name, vector in self._others.items()},
        )
        return changed, self._stored | {name: one.stored() for name, one in self._rounded.items()}

    def _computed(
        self,
        parameters: Mapping[str, Tensor],
        table: Tensor,
        head: Tensor,
        rows: Sequence[Sequence[int]],
        before: NDArray[Any] | None,
    ) -> Logits:
        """Of the model with `parameters` in place of its own."""
        ids, lengths = (torch.from_numpy(values).to(self.device) for values in right_padded(rows))
        stands = torch.zeros(0, dtype=torch.int64) if before is None else torch.from_numpy(before)
        first = stands.to(self.device) if stands.ndim == 2 else table[stands.to(self.device)]
        embedded = torch.cat([first.expand(len(ids), -1, -1), table[ids]], dim=1)
        places = torch.arange(embedded.shape[1], device=self.device)
        prefix = f"{self._model.base_model_prefix}."
        hidden = torch.func.functional_call(
            self._model.base_model,
            {name.removeprefix(prefix): value for name, value in parameters.items() if name.startswith(prefix)},
            kwargs={
                "inputs_embeds": embedded,
                "attention_mask": (places < len(first) + lengths[:, None]).long(),
                "use_cache": False,
            },
        ).last_hidden_state[:, len(first) :]
        return Logits(F.linear(hidden, head if self._label_head is None else self._label_head), lengths)
