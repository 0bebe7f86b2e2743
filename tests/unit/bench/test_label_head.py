"""Artifacts with logits of their labels alone: asked, measured and compared, and what they can't do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeicl.bench.artifact import open_artifact
from edgeicl.bench.classify import classify, probabilities, query_ids, task_of
from edgeicl.bench.generate import generate
from edgeicl.bench.stage import bench
from edgeicl.bench.workload import Workload
from edgeicl.errors import DataError
from edgeicl.models.flops import prompt_flops
from edgeicl.new_prefix import replace_prefix
from edgeicl.report.facts import bench_facts
from edgeicl.specs.quant_plan import Format
from tests.unit.bench.conftest import TINY, WORDS, build_artifact, tiny_task, tiny_tokenizer
from tests.unit.bench.test_classify import QUERIES
from tests.unit.bench.test_prefix import EXAMPLES, SETS

Make = Callable[..., Path]
LABELS = {"contradiction": "no", "entailment": "yes", "neutral": "not"}


def built(folder: Path, *, labels_alone: bool, sets: Any = ()) -> Path:
    """In fp32, so that both heads hold the same rows."""
    return build_artifact(
        folder,
        TINY,
        Format(bits=32),
        tiny_tokenizer(),
        tiny_task(LABELS),
        scale=20.0,
        sets=sets,
        labels_alone=labels_alone,
    )


@pytest.mark.parametrize("sets", [(), SETS], ids=["alone", "behind sets"])
def test_probabilities_are_those_of_the_full_head(tmp_path: Path, sets: Any) -> None:
    found = []
    for alone in (False, True):
        artifact = open_artifact(built(tmp_path / str(alone), labels_alone=alone, sets=sets))
        rows = query_ids(artifact, task_of(artifact), EXAMPLES[:5])
        found.append(probabilities(artifact, rows, threads=1, batch_size=2))
        answer = classify(artifact, QUERIES[0], threads=1)
        assert list(answer.probabilities) == list(LABELS)
    np.testing.assert_allclose(found[1], found[0], rtol=0, atol=1e-5)
    # Negative control: labels differ by far more, so columns in another order would show.
    assert np.abs(found[0] - np.roll(found[0], 1, axis=-1)).max() > 0.01


def test_columns_are_those_that_the_task_names(tmp_path: Path) -> None:
    artifact = open_artifact(built(tmp_path / "a", labels_alone=True))
    task = task_of(artifact)
    assert task.logit_tokens == tuple(WORDS.index(word) for word in LABELS.values())
    assert task.label_columns() == [(0,), (1,), (2,)]
    other = task.model_copy(update={"logit_tokens": task.logit_tokens[::-1]})
    assert other.label_columns() == [(2,), (1,), (0,)]
    decoder = artifact.decoder(threads=1, context_tokens=8)
    assert decoder.prefill(np.array([[0, 9, 10]])).shape == (1, 3)


def test_a_text_is_not_continued(make_artifact: Make) -> None:
    artifact = open_artifact(make_artifact(labels_alone=True))
    with pytest.raises(DataError, match="logits of its labels alone") as caught:
        generate(artifact, "w1 w2", tokens=2, threads=1)
    assert "emit.head: full" in str(caught.value)


def test_only_the_prompt_is_measured_and_the_report_says_why(make_artifact: Make) -> None:
    result = bench(make_artifact(labels_alone=True), Workload(1, 6, 4, repetitions=2, warmup_repetitions=0))
    assert result.decode_tokens_per_second is None
    assert result.decode_latency is None
    assert result.ceiling_tokens_per_second is None
    assert result.conditions.decode_tokens == 0
    assert result.first_token_ms > 0
    assert result.spread_ratio is not None
    assert any(note.startswith("nothing is decoded") for note in result.notes)
    assert result.prompt_flops == prompt_flops(TINY, tokens=6, logits=2)
    assert prompt_flops(TINY, tokens=6) - result.prompt_flops == 2 * 32 * (40 - 2)
    table = bench_facts(result)
    assert not [name for name, _ in table.rows if name.startswith("decode")]
    assert "nothing is decoded" in table.note


def test_another_prefix_can_be_put_before_it(make_artifact: Make, tmp_path: Path) -> None:
    artifact = open_artifact(make_artifact(labels_alone=True, sets=SETS))
    replace_prefix(artifact, SETS[:1], output=tmp_path / "new")
    new = open_artifact(tmp_path / "new")
    assert len(new.prefixes) == 1
    assert task_of(new).logit_tokens == task_of(artifact).logit_tokens
    rows = query_ids(artifact, task_of(artifact), EXAMPLES[:3])
    first = probabilities(artifact, rows, threads=1)[:1]
    np.testing.assert_allclose(probabilities(new, rows, threads=1), first, rtol=0, atol=1e-9)
