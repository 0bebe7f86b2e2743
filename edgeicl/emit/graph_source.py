"""Where the artifact's graph comes from, a lowering or Optimum's export, and what it is compared with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from edgeicl.emit.exported.lowering import takes_positions, write_exported
from edgeicl.emit.exported.reference import put_in
from edgeicl.emit.lowering import write_model
from edgeicl.emit.prompts_apart import reference_of
from edgeicl.emit.reference import AllLogits, Array, all_logits
from edgeicl.emit.weights import Floats, QuantizedWeights
from edgeicl.models.anatomy import EMBEDDING
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.checkpoint import Checkpoint
from edgeicl.models.group_matrices import group_matrices
from edgeicl.models.growing_decoder import GrowingDecoder
from edgeicl.models.loading import load_model
from edgeicl.models.model_folder import model_config
from edgeicl.models.onnx_decoder import OnnxDecoder
from edgeicl.specs.manifest import MODEL_FILE, Deviation, Engine, LedgerEntry


@dataclass(frozen=True)
class GraphSource(ABC):
    """The graph of the model in the folder `student`, with the weights of the plan."""

    student: Path
    weights: QuantizedWeights

    engine: Engine = "fused"
    decoder: type[OnnxDecoder] | type[GrowingDecoder] = OnnxDecoder

    @abstractmethod
    def write(self, folder: Path) -> list[LedgerEntry]:
        """Writes graph and weights; a ledger row for each tensor and one for the graph."""

    @abstractmethod
    def reference(self, head_tokens: Sequence[int] | None) -> Callable[[Array | None], AllLogits]:
        """From what stands before every row to logits by transformers' model with the artifact's weights.

        `head_tokens` have rows of the head of their own.
        """

    @property
    def deviations(self) -> list[Deviation]:
        """What such a graph can't give."""
        return []

    def takes_positions(self, folder: Path) -> bool:
        """Whether the graph that was written into `folder` is given the positions of its tokens."""
        return False


class FusedGraph(GraphSource):
    """Built node by node."""

    def write(self, folder: Path) -> list[LedgerEntry]:
        """As `write_model`."""
        return write_model(folder, model_config(self.student), self.weights)

    def reference(self, head_tokens: Sequence[int] | None) -> Callable[[Array | None], AllLogits]:
        """As `reference_of`, with the student's own rows of the head for `head_tokens`."""
        config = model_config(self.student)
        rows: dict[int, Floats] | None = None
        if head_tokens is not None:
            anatomy = anatomy_of(config)
            table = Checkpoint(self.student, anatomy.prefix).read(anatomy.group(EMBEDDING).weights[0])
            rows = {token: table[token].float().numpy().copy() for token in head_tokens}
        return reference_of(config, self.weights, label_rows=rows)


@dataclass(frozen=True)
class ExportedGraph(GraphSource):
    """Optimum's, which lies in the folder `export`."""

    engine: Engine = "growing"
    decoder: type[OnnxDecoder] | type[GrowingDecoder] = GrowingDecoder
    export: Path = Path()

    def write(self, folder: Path) -> list[LedgerEntry]:
        """As `write_exported`."""
        anatomy = anatomy_of(model_config(self.student))
        matrices = group_matrices(load_model(self.student), anatomy)
        return write_exported(folder, self.export, anatomy, self.weights, matrices)

    def reference(self, head_tokens: Sequence[int] | None) -> Callable[[Array | None], AllLogits]:
        """The student with the groups' matrices exchanged."""
        model: torch.nn.Module = load_model(self.student)
        put_in(model, anatomy_of(model_config(self.student)), self.weights)
        return lambda before: all_logits(model, before)

    @property
    def deviations(self) -> list[Deviation]:
        """That it isn't one of ours."""
        return [
            Deviation(
                what="graph",
                where=f"student, a {model_config(self.student)['model_type']} model",
                asked="a fused graph",
                got="Optimum's export with quantized weights",
                why="edgeicl has no lowering of this architecture: the artifact is slower, takes more memory, "
                "and edgeicl reads the rows of a batch one after another",
            )
        ]

    def takes_positions(self, folder: Path) -> bool:
        """Whether it has an input for them."""
        return takes_positions(folder / MODEL_FILE)
