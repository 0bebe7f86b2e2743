"""Predictions by majority: several demonstration sets, one answer (arXiv 2212.10670)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgeicl.distill.evaluate import DataName
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.predictions import Predictions
from edgeicl.distill.scoring import score_queries
from edgeicl.numerics.voting import majority_vote
from edgeicl.progress import track
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder

Sets = Mapping[str, Sequence[Sequence[int]]]
"""By run, the demonstration sets that vote: tokens that stand before a query."""


class Voter:
    """Asks a model about the evaluation data after each of several demonstration sets."""

    def __init__(self, encoder: PromptEncoder, evaluation: Mapping[DataName, Sequence[Example]]) -> None:
        self.tokens = list(encoder.tokens.values())
        self.queries = {data: encoder.queries(examples) for data, examples in evaluation.items()}

    def predict(self, load: Callable[[], LabelReader], method: str, sets: Sets) -> Predictions:
        """What the model answers in each run of `method`: the majority of the run's sets."""
        reader = load()
        found: Predictions = {}
        count = sum(len(several) for several in sets.values()) * sum(map(len, self.queries.values()))
        with track(f"evaluating {method}", count) as advance:
            for run, several in sets.items():
                for data, queries in self.queries.items():
                    scores = [
                        score_queries(reader, queries, self.tokens, before=before, advance=advance)
                        for before in several
                    ]
                    found[f"{method}/{data}/{run}"] = majority_vote(np.exp(scores))
        return found
