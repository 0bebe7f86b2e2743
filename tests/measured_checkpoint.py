"""A checkpoint at text that plans are made on, and at text that nothing was chosen on, where it is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import exp
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgeicl.models.loading import load_model, load_tokenizer
from edgeicl.numerics.size import group_bytes
from edgeicl.quantize.allocation import LossTable, SizeTable, plan_bytes
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.lessons import Lesson
from edgeicl.quantize.offered_formats import offered_formats
from edgeicl.quantize.own_texts import own_texts
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.solver import SolverName, solve
from edgeicl.quantize.stored_weights import read_again
from edgeicl.quantize.student_weights import StudentWeights, read_weights
from edgeicl.specs.quant_plan import Format
from edgeicl.specs.source import TextSource
from edgeicl.tasks.prompt import leading_tokens
from edgeicl.tasks.text_source import read_texts

Floats = NDArray[np.float32]
Plan = Mapping[str, Format]

OFFERED = tuple(
    Format(bits=bits, block_size=block, symmetric=symmetric)
    for bits, blocks in ((2, (64, 128)), (4, (32, 64, 128)), (8, (32, 64, 128)))
    for block in blocks
    for symmetric in (True, False)
)
CALIBRATION_DOCUMENTS, UNSEEN_DOCUMENTS = 96, 64
PIECE_TOKENS, OWN_TEXTS = 128, 512
"""Of what recovery learns from; AutoRound calibrates on pieces of that length."""


@dataclass(frozen=True)
class Found:
    """One way to store the model within a budget: its weights by group, and its bytes."""

    name: str
    values: Mapping[str, Floats]
    stored_bytes: int
    weights: StudentWeights | None = None
    """Biases and norms, where they are others than the checkpoint's."""


class Model:
    """A checkpoint at calibration text and at text that nothing was chosen on."""

    def __init__(self, folder: Path, text: TextSource, *, most_tokens: int) -> None:
        self.weights = read_weights(folder)
        tokenizer = load_tokenizer(folder)
        documents = [document.strip() for document in read_texts(text, base_folder=Path.cwd())]
        encodings = tokenizer.encode_batch(documents[: CALIBRATION_DOCUMENTS + UNSEEN_DOCUMENTS])
        read = [encoding.ids[:most_tokens] for encoding in encodings]
        self.calibration = CalibratedDecoder(self.weights, read[:CALIBRATION_DOCUMENTS])
        self.sensitivity = Sensitivity(self.calibration)
        self.chosen_on, self._unseen = read[:CALIBRATION_DOCUMENTS], read[CALIBRATION_DOCUMENTS:]
        self._exact = self._log_probabilities(self.weights.matrices, self.weights)
        self.folder, self.leading = folder, leading_tokens(tokenizer)
        self.sizes: SizeTable = {
            group.name: {f: group_bytes(*group.shape, f) for f in offered_formats(group, OFFERED)}
            for group in self.weights.groups
        }
        self._tables: dict[SolverName, LossTable] = {}

    def uniform(self, format_: Format) -> dict[str, Format]:
        return {group.name: format_ for group in self.weights.groups}

    def losses(self, solver: SolverName) -> LossTable:
        """Measured sensitivity of each group in each format."""
        if solver not in self._tables:
            table: dict[str, dict[Format, float]] = {name: {} for name in self.sizes}
            for format_ in OFFERED:
                groups = [group for group in self.weights.groups if format_ in self.sizes[group.name]]
                found = self.sensitivity.losses(groups, self.weights, format_, solver=solver)
                for group, loss in found.items():
                    table[group][format_] = loss
            self._tables[solver] = table
        return self._tables[solver]

    def stored(self, name: str, solver: SolverName, plan: Plan) -> Found:
        values = solve(solver, self.weights, plan, self.calibration)
        return Found(name, {g: read_again(m) for g, m in values.items()}, plan_bytes(plan, self.sizes))

    def measured(
        self, values: Mapping[str, Floats], weights: StudentWeights | None = None
    ) -> tuple[float, float]:
        """Perplexity of the unseen text, and KL to fp32 in nats a token."""
        found = self._log_probabilities(values, weights or self.weights)
        following = torch.tensor([token for document in self._unseen for token in document])[1:]
        told = found[:-1].gather(-1, following[:, None])[:, 0]
        last = torch.tensor([*map(len, self._unseen)]).cumsum(0)[:-1] - 1  # another document follows
        within = torch.ones(len(told), dtype=torch.bool).index_fill(0, last, value=False)
        kl = (self._exact.exp() * (self._exact - found)).sum(-1).mean()
        return exp(-float(told[within].mean())), float(kl)

    def _log_probabilities(self, values: Mapping[str, Floats], weights: StudentWeights) -> torch.Tensor:
        """[T, V] at every token of the unseen text, float64."""
        decoder = CalibratedDecoder(weights, self._unseen)
        replaced = {name: torch.from_numpy(matrix) for name, matrix in values.items()}
        hidden = decoder.embed(replaced)
        for index in range(decoder.layers):
            hidden = decoder.layer(index, hidden, replaced)
        return torch.log_softmax(decoder.logits(hidden, replaced).double(), dim=-1)

    @cached_property
    def lessons(self) -> list[Lesson]:
        """The documents that plans are chosen on, in pieces, and texts that the checkpoint writes itself."""
        pieces = [d[at : at + PIECE_TOKENS] for d in self.chosen_on for at in range(0, len(d), PIECE_TOKENS)]
        written = own_texts(
            load_model(self.folder), leading=self.leading, texts=OWN_TEXTS, tokens=PIECE_TOKENS, seed=0
        )
        return [Lesson("text", [p for p in pieces if len(p) > 1]), Lesson("own texts", written)]
