"""A student whose anatomy isn't known, as `CalibratedDecoder` has the others: run whole, by transformers.

It is a decoder without layers, so that what is measured on one is measured on the other: a changed matrix costs
the entire model. Biases and norms stay in the model; the matrices of the groups are those of its linear layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgeicl.errors import DataError
from edgeicl.models.anatomy import EMBEDDING, HEAD, Anatomy
from edgeicl.models.group_matrices import group_matrices
from edgeicl.models.loading import load_model
from edgeicl.quantize.decoder import CalibratedDecoder, Listener
from edgeicl.quantize.rounded_inputs import Matrix, product
from edgeicl.quantize.student_weights import StudentWeights


@dataclass(frozen=True, eq=False)
class WholeModelWeights(StudentWeights):
    """The matrices of the groups, and the model they were taken from, which goes on holding everything else."""

    model: nn.Module


def read_whole_model(folder: Path, anatomy: Anatomy) -> WholeModelWeights:
    """The model in `folder`, in fp32.

    Raises:
        DataError: weights that are missing, don't fit or aren't finite.
    """
    model = load_model(folder)
    wrong = [name for name, values in model.named_parameters() if not bool(torch.isfinite(values).all())]
    if wrong:
        raise DataError(f"{folder}: NaN or infinity in {', '.join(wrong)}")
    matrices = {name: np.ascontiguousarray(found) for name, found in group_matrices(model, anatomy).items()}
    return WholeModelWeights(anatomy=anatomy, matrices=matrices, biases={}, others={}, model=model)


class WholeModelDecoder(CalibratedDecoder):
    """The student and its calibration sequences, each run alone. Notation as in `CalibratedDecoder`.

    Raises:
        DataError: no sequences, or one that the model can't take.
    """

    def __init__(self, weights: WholeModelWeights, sequences: Sequence[Sequence[int]]) -> None:
        anatomy = weights.anatomy
        lengths = [len(sequence) for sequence in sequences]
        if not lengths or min(lengths) == 0 or max(lengths) > anatomy.positions:
            raise DataError(
                f"calibration sequences have {sorted(set(lengths))} tokens; expected 1 to {anatomy.positions} "
                "in each"
            )
        self.tokens = torch.tensor([token for sequence in sequences for token in sequence])
        self.lengths, self.prefix_tokens, self.layers = lengths, 0, 0
        self.groups, self._rectified = weights.groups, anatomy.rectified
        self.head = EMBEDDING if anatomy.tied else HEAD
        self._model: Any = weights.model
        self._matrices = weights.matrices
        self._parameters = {
            group.name: (self._model.get_parameter(group.weights[0]), group.transposed)
            for group in weights.groups
        }

    @torch.inference_mode()
    def embed(
        self, replaced: Mapping[str, Matrix] | None = None, *, before: Listener = lambda group, inputs: None
    ) -> Tensor:
        """The model's last hidden state [T, H]; `before` is never asked."""
        with self._holding(replaced or {}):
            rows = [
                self._model.base_model(input_ids=ids[None], use_cache=False).last_hidden_state[0]
                for ids in torch.split(self.tokens, self.lengths)
            ]
        return torch.cat(rows)

    @torch.inference_mode()
    def logits(
        self, hidden: Tensor, replaced: Mapping[str, Matrix] | None = None, *, final_norm: bool = True
    ) -> Tensor:
        """[M, V] logits of rows [M, H] of the last hidden state, which is normed already."""
        head: nn.Linear = self._model.get_output_embeddings()
        return product(hidden, self._matrix(self.head or HEAD, replaced), head.bias)

    def predictions(self, hidden: Tensor, replaced: Mapping[str, Matrix] | None = None) -> Tensor:
        """As `logits`."""
        return self.logits(hidden, replaced)

    @contextmanager
    def _holding(self, replaced: Mapping[str, Matrix]) -> Iterator[None]:
        """The model with other matrices in it, by group name."""
        own = {name: self._parameters[name][0].data for name in replaced}
        try:
            for name, matrix in replaced.items():
                assert isinstance(matrix, Tensor)  # a target's integer products aren't offered to such a graph
                parameter, transposed = self._parameters[name]
                parameter.data = matrix.T if transposed else matrix
            yield
        finally:
            for name, values in own.items():
                self._parameters[name][0].data = values
