"""Label scores checked by hand, and the limit that the artifact has to keep."""

from __future__ import annotations

from math import log

import numpy as np
import pytest

from edgeicl.emit.accuracy import compare_accuracy, label_scores, predict
from edgeicl.errors import QualityError

# next-token probabilities of a model of four tokens that looks at the last token only
NEXT = np.array(
    [[0.1, 0.2, 0.3, 0.4], [0.7, 0.1, 0.1, 0.1], [0.25, 0.25, 0.25, 0.25], [0.0625, 0.5, 0.1875, 0.25]]
)


def last_logits(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    last = ids[np.arange(len(ids)), mask.sum(axis=1) - 1]
    logits = np.log(NEXT[last]) + 5.0  # log-probabilities must not depend on the level of the logits
    return np.asarray(logits, dtype=np.float32)


def test_scores_on_paper() -> None:
    scores = label_scores(last_logits, [[1, 0], [3]], [(2,), (3, 1), (0, 0, 3)])
    expected = [
        [log(0.3), log(0.4) + log(0.5), log(0.1) + log(0.1) + log(0.4)],
        [log(0.1875), log(0.25) + log(0.5), log(0.0625) + log(0.1) + log(0.4)],
    ]
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-6)


def test_mean_scores_on_paper() -> None:
    # After 0: log 0.2 = -1.61 for the short word; for (2, 2) log 0.3 + log 0.25 = -2.59, and -1.30 in the mean.
    labels = [(1,), (2, 2)]
    assert predict([last_logits], [[0]], labels, batch_size=1).tolist() == [0]
    assert predict([last_logits], [[0]], labels, batch_size=1, score="mean").tolist() == [1]


def test_predictions_come_back_in_their_order() -> None:
    prompts = [[0], [1, 1, 1], [3], [2, 1], [3, 3, 3, 3], [0, 0]]
    told: list[int] = []
    found = predict([last_logits], prompts, [(1,), (0,), (3,)], batch_size=4, advance=told.append)
    assert found.tolist() == [2, 1, 0, 1, 0, 2]
    assert told == [4, 2]
    alone = [predict([last_logits], [prompt], [(1,), (0,), (3,)], batch_size=1)[0] for prompt in prompts]
    assert found.tolist() == alone


def test_the_limit_is_kept_to_the_point() -> None:
    truth = np.zeros(100, np.int64)
    student, artifact = truth.copy(), truth.copy()
    student[:43], artifact[:44] = 1, 1  # 57 % and 56 %
    kept = compare_accuracy(data="in_domain", student=student, artifact=artifact, truth=truth, limit_points=1.0)
    assert (kept.student, kept.artifact, kept.examples, kept.limit_points) == (0.57, 0.56, 100, 1.0)
    artifact[44] = 1
    with pytest.raises(
        QualityError, match=r"in_domain: .* 55\.00% of 100 .* 57\.00%: 2\.00 points lost; .* allows 1$"
    ):
        raise_with_message_only(student, artifact, truth)
    free = compare_accuracy(
        data="out_of_domain", student=student, artifact=artifact, truth=truth, limit_points=None
    )
    assert free.limit_points is None


def raise_with_message_only(student: np.ndarray, artifact: np.ndarray, truth: np.ndarray) -> None:
    try:
        compare_accuracy(data="in_domain", student=student, artifact=artifact, truth=truth, limit_points=1.0)
    except QualityError as error:
        raise QualityError(error.args[0]) from error


def test_an_artifact_that_is_better_than_its_student_passes() -> None:
    truth = np.array([0, 1, 0, 1])
    better = compare_accuracy(
        data="in_domain", student=np.zeros(4, np.int64), artifact=truth, truth=truth, limit_points=0.0
    )
    assert better.artifact == 1.0
