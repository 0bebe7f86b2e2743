"""Accuracy of the artifact beside the student it was made from, both asked the same way about the same queries.

A label's score is the sum, or the mean, of the log-probabilities of its tokens after the query; the highest
wins, and of several demonstration sets each has a vote. Everything here is token ids: prompts as rows, labels
as tuples of tokens, truth as positions in the list of labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgeicl.errors import QualityError
from edgeicl.models.growing_decoder import GrowingDecoder
from edgeicl.models.onnx_decoder import OnnxDecoder
from edgeicl.models.prefix_file import Rows
from edgeicl.numerics.voting import majority_vote
from edgeicl.specs.manifest import ArtifactAccuracy

Logits = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
LastLogits = Callable[[Ids, Ids], Logits]
"""Ids and mask [B, T], padded on the right -> logits [B, V] after each row's last token; B never changes."""


def predict(
    by_set: Iterable[LastLogits],
    prompts: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    *,
    batch_size: int,
    advance: Callable[[int], None] = lambda n: None,
    score: Literal["sum", "mean"] = "sum",
) -> npt.NDArray[np.int64]:
    """The winning label's position for each prompt. Prompts of similar length share a batch.

    `by_set` has the model behind each demonstration set, or just the model; each is asked before the next is
    taken, so that they may share what can hold one set at a time.
    """
    order = np.argsort([len(prompt) for prompt in prompts], kind="stable")
    shares = []
    for last_logits in by_set:
        scores = np.zeros((len(prompts), len(labels)))
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            rows = [list(prompts[index]) for index in indices]
            filled = rows + [rows[-1]] * (batch_size - len(rows))
            scores[indices] = label_scores(last_logits, filled, labels)[: len(rows)]
            advance(len(rows))
        if score == "mean":
            scores /= [len(tokens) for tokens in labels]
        shares.append(np.exp(_log_softmax(scores)))
    return majority_vote(np.stack(shares))


def label_scores(
    last_logits: LastLogits, rows: Sequence[Sequence[int]], labels: Sequence[Sequence[int]]
) -> npt.NDArray[np.float64]:
    """Log-probability [rows, labels] of all tokens of each label after each row."""
    scores = np.zeros((len(rows), len(labels)))
    after_query = _log_probabilities(last_logits, rows)
    for position, tokens in enumerate(labels):
        scores[:, position] = after_query[:, tokens[0]]
        for count in range(1, len(tokens)):
            further = _log_probabilities(last_logits, [[*row, *tokens[:count]] for row in rows])
            scores[:, position] += further[:, tokens[count]]
    return scores


def artifact_logits(
    decoder: OnnxDecoder | GrowingDecoder, prefixes: Sequence[Rows] = ()
) -> Iterator[LastLogits]:
    """The artifact behind each prefix in turn, or alone; the decoder's batch size is that of the batches."""
    for prefix in prefixes:
        decoder.load_prefix(prefix)
        yield decoder.prefill
    if not prefixes:
        yield decoder.prefill


def compare_accuracy(
    *,
    data: str,
    student: npt.NDArray[np.int64],
    artifact: npt.NDArray[np.int64],
    truth: npt.NDArray[np.int64],
    limit_points: float | None,
) -> ArtifactAccuracy:
    """Accuracy of both on one data set; `limit_points` is how many points the artifact may lose.

    Raises:
        QualityError: it loses more.
    """
    accuracy = ArtifactAccuracy.model_validate(
        {
            "data": data,
            "student": float((student == truth).mean()),
            "artifact": float((artifact == truth).mean()),
            "examples": len(truth),
            "limit_points": limit_points,
        }
    )
    lost_points = 100.0 * (accuracy.student - accuracy.artifact)
    # a hair of slack: 0.57 - 0.56 is more than 0.01 in floating point
    if limit_points is not None and lost_points > limit_points + 1e-9:
        raise QualityError(
            f"{data}: the artifact is right on {accuracy.artifact:.2%} of {len(truth)} examples, the student "
            f"on {accuracy.student:.2%}: {lost_points:.2f} points lost; "
            f"limits.accuracy_drop_points allows {limit_points:g}",
            next_step="allow a larger budget or more bits in the target, or raise limits.accuracy_drop_points",
        )
    return accuracy


def _log_probabilities(last_logits: LastLogits, rows: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return _log_softmax(last_logits(ids, mask).astype(np.float64))


def _log_softmax(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = values - values.max(axis=1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)), dtype=np.float64)
