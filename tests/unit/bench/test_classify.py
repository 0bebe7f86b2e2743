"""Label scores against a second way of computing them, and accuracy counted by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edgeicl.bench.answer_scores import log_probabilities, score_answers
from edgeicl.bench.artifact import Artifact, open_artifact
from edgeicl.bench.classify import (
    classify,
    evaluate,
    probabilities,
    query_ids,
    task_of,
)
from edgeicl.bench.generate import generate, until_end
from edgeicl.errors import DataError
from edgeicl.specs.source import Source
from edgeicl.tasks.example import Example

Make = Callable[..., Path]
MULTI = {"entailment": "yes at all", "neutral": "no", "contradiction": "not at"}
QUERIES = [
    {"premise": "w1 w2 w3", "hypothesis": "w4"},
    {"premise": "w5", "hypothesis": "w6 w7 w8 w9 w10"},
    {"premise": "w11 w3", "hypothesis": "w2"},
]


def scored_anew(
    artifact: Artifact, row: Sequence[int], answers: Sequence[Sequence[int]]
) -> npt.NDArray[np.float64]:
    """Probabilities of the answers, each token read from a prefill of all before it, in fp64 throughout."""
    decoder = artifact.decoder(threads=1, context_tokens=64)
    scores = []
    for answer in answers:
        total = 0.0
        for count, token in enumerate(answer):
            logits = decoder.prefill(np.array([[*row, *answer[:count]]]))[0].astype(np.float64)
            total += logits[token] - np.log(np.exp(logits).sum())
        scores.append(total)
    shares = np.exp(scores)
    return np.asarray(shares / shares.sum())


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_probabilities_of_several_tokens(make_artifact: Make, batch_size: int) -> None:
    artifact = open_artifact(make_artifact(verbalizers=MULTI))
    task = task_of(artifact)
    rows = query_ids(artifact, task, [Example(columns, "neutral") for columns in QUERIES])
    (found,) = probabilities(artifact, rows, threads=1, batch_size=batch_size)
    answers = [task.verbalizer_tokens[label] for label in MULTI]
    expected = np.stack([scored_anew(artifact, row, answers) for row in rows])
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-4)
    # Negative control: the queries' answers differ by far more than the tolerance.
    assert np.abs(found - np.roll(found, 1, axis=0)).max() > 0.01


def test_classify_names_the_labels(make_artifact: Make) -> None:
    artifact = open_artifact(make_artifact())
    found = classify(artifact, QUERIES[0], threads=1).probabilities
    assert list(found) == ["entailment", "contradiction"]
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-9)


def test_query_ids_start_with_the_tokenizers_own(make_artifact: Make) -> None:
    artifact = open_artifact(make_artifact())
    assert query_ids(artifact, task_of(artifact), [Example(QUERIES[0], "")]) == [[0, 9, 10, 11, 12]]


def test_a_query_that_is_too_long(make_artifact: Make) -> None:
    artifact = open_artifact(make_artifact())
    with pytest.raises(DataError, match="found 65 tokens; expected 1 to 63, with 1 left for the label"):
        classify(artifact, {"premise": "w1 " * 63, "hypothesis": "w2"}, threads=1)


def test_evaluate_against_counting(make_artifact: Make, tmp_path: Path) -> None:
    folder = make_artifact()
    artifact = open_artifact(folder)
    random = np.random.default_rng(1)
    rows = []
    for _ in range(21):
        premise, hypothesis = (" ".join(f"w{n}" for n in random.integers(0, 32, 4)) for _ in range(2))
        label = str(random.choice(["entailment", "contradiction"], p=[0.7, 0.3]))
        rows.append({"premise": premise, "hypothesis": hypothesis, "label": label})
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = evaluate(folder, Source(source="file:data.jsonl"), tmp_path, threads=1, batch_size=4)
    right: dict[str, list[bool]] = {"entailment": [], "contradiction": []}
    for row in rows:
        shares = classify(artifact, row, threads=1).probabilities
        right[row["label"]].append(max(shares, key=lambda label: shares[label]) == row["label"])
    assert found.examples == 21
    assert found.accuracy == pytest.approx(np.mean([*right["entailment"], *right["contradiction"]]), abs=1e-12)
    assert found.accuracy_by_label == pytest.approx({k: np.mean(v) for k, v in right.items()}, abs=1e-12)
    assert found.balanced_accuracy == pytest.approx(np.mean([np.mean(v) for v in right.values()]), abs=1e-12)


def test_evaluate_by_group_and_among_a_rows_own_options(make_artifact: Make, tmp_path: Path) -> None:
    folder = make_artifact()
    rows = [
        {
            "premise": f"w{n} w3",
            "hypothesis": "w1",
            "label": "entailment",
            "kind": "ab"[n % 2],
            "only": ["entailment"],
        }
        for n in range(8)
    ]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = Source(source="file:data.jsonl", breakdown="kind", options="only")
    found = evaluate(folder, source, tmp_path, threads=1)
    assert found.accuracy == found.macro_f1 == 1.0  # there was nothing else to answer
    assert {name: part.examples for name, part in found.by_group.items()} == {"a": 4, "b": 4}
    free = evaluate(folder, Source(source="file:data.jsonl"), tmp_path, threads=1)
    assert free.by_group == {}


def test_a_mean_score_divides_by_the_words_tokens(make_artifact: Make) -> None:
    artifact = open_artifact(make_artifact())
    words = {"entailment": (9,), "contradiction": (10, 11)}

    def shares(score: str) -> np.ndarray:
        changed = {"verbalizer_tokens": words, "score": score}
        task = task_of(artifact).model_copy(update=changed)
        return np.log(probabilities(replace(artifact, task=task), [[0, 9, 12], [0, 11, 10, 9]], threads=1)[0])

    total = shares("sum")
    # Up to a constant a row, log-probabilities are the scores; the constants drop out of the difference.
    scores = score_answers(
        artifact.decoder(threads=1, context_tokens=64, batch_size=2),
        [[0, 9, 12], [0, 11, 10, 9]],
        list(words.values()),
    )
    np.testing.assert_allclose(total[:, 1] - total[:, 0], scores[:, 1] - scores[:, 0], atol=1e-6)
    mean = shares("mean")
    np.testing.assert_allclose(mean[:, 1] - mean[:, 0], scores[:, 1] / 2 - scores[:, 0], atol=1e-6)


def test_log_probabilities_survive_large_logits() -> None:
    found = log_probabilities(np.array([[1000.0, 1000.0]], dtype=np.float32))
    np.testing.assert_allclose(found, [[-np.log(2), -np.log(2)]], rtol=0, atol=1e-12)


def test_generation_is_the_decoders_own(make_artifact: Make) -> None:
    artifact = open_artifact(make_artifact())
    ids = artifact.decoder(threads=1, context_tokens=64).generate([0, 9, 10], 5)
    assert generate(artifact, "w1 w2", tokens=5, threads=1) == artifact.tokenizer.decode(
        until_end(ids, artifact.end_tokens)
    )
    with pytest.raises(DataError, match="the text is 3 tokens long and 62 more were asked for"):
        generate(artifact, "w1 w2", tokens=62, threads=1)


def test_text_ends_before_an_end_token() -> None:
    assert until_end([5, 6, 2, 7], frozenset({2})) == [5, 6]
    assert until_end([5, 6], frozenset({2})) == [5, 6]
