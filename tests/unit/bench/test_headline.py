"""The headline from end to end with tiny models, its costs on paper, and each way that it can't be had."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from edgeicl.bench.artifact import open_artifact
from edgeicl.bench.classify import log_probabilities, probabilities
from edgeicl.bench.headline.artifact_program import answer
from edgeicl.bench.headline.compare_teacher import at_chance, doubts, headline
from edgeicl.bench.headline.query_cost import Pass, artifact_cost, passes_of, teacher_cost, weights_held
from edgeicl.bench.headline.query_loop import label_scores
from edgeicl.bench.headline.questions import Questions, Shown, questions
from edgeicl.bench.headline.side import Side, artifact_side
from edgeicl.bench.rivals.asked_teacher import AskedTeacher
from edgeicl.bench.rivals.checkpoint import write_random_checkpoint
from edgeicl.errors import BenchError, DataError, SpecError
from edgeicl.headline_commands import headline_app
from edgeicl.report.headline_facts import headline_tables
from edgeicl.specs.comparison import Ratio
from edgeicl.specs.headline import AgainstTeacher, Headline
from edgeicl.specs.source import Source
from edgeicl.store import Store
from tests.unit.bench.conftest import TINY, tiny_tokenizer

Make = Callable[..., Path]
LONG = {"entailment": "yes", "contradiction": "not at all"}


def write_examples(path: Path, count: int, *, first: int) -> Source:
    """Sentences of words that the tiny tokenizer knows, no two alike."""
    rows = [
        {
            "premise": f"w{(first + n) % 32} w{n % 7}",
            "hypothesis": f"w{n % 5} w{(first + n) // 32}",
            "label": ("entailment", "contradiction")[n % 2],
        }
        for n in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return Source(source=f"file:{path}")


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """Random weights in another shape than the artifact's."""
    config = {**TINY, "hidden_size": 48, "word_embed_proj_dim": 48, "ffn_dim": 96, "num_attention_heads": 3}
    folder = write_random_checkpoint(tmp_path / "teacher", config)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def asked_of(tmp_path: Path, teacher: Path) -> Callable[..., Questions]:
    """The questions to an artifact."""

    def ask(artifact: Path, *, demonstrations: int = 4) -> Questions:
        return questions(
            open_artifact(artifact),
            teacher,
            {"in_domain": write_examples(tmp_path / "in.jsonl", 12, first=0)},
            Shown(write_examples(tmp_path / "shown.jsonl", 20, first=40), demonstrations, True, 0),
            queries=6,
            base_folder=tmp_path,
        )

    return ask


def made_up(side: Side) -> dict[str, Any]:
    """A process of a side that never runs: a millisecond a query, and no answer likelier than another."""
    rows, answers = side.request["rows"], side.request["answers"]
    return {
        "load_ms": 1.0, "demonstrations_ms": 0.0, "query_ms": [1.0] * len(rows), "threads": 1,
        "scores": [[[-1.0] * len(answers) for _ in rows]], "baseline_rss_bytes": 1, "peak_rss_bytes": 2,
        "machine": "m", "processor": "p", "logical_cores": 1, "versions": {},
    }  # fmt: skip


def beside_teacher(artifact: Path, teacher: Path, tmp_path: Path, *, rounds: int = 1) -> Headline:
    """The artifact beside the teacher with 4 demonstrations on 6 and 4 queries."""
    return headline(
        artifact,
        teacher=teacher,
        teacher_name="tiny",
        sources={
            "in_domain": write_examples(tmp_path / "in.jsonl", 12, first=0),
            "out_of_domain": write_examples(tmp_path / "out.jsonl", 4, first=70),
        },
        shown=Shown(write_examples(tmp_path / "shown.jsonl", 20, first=40), 4, True, 0),
        base_folder=tmp_path,
        store=Store(tmp_path / "store"),
        threads=1,
        queries=6,
        rounds=rounds,
        precisions=("fp32",),
    )


def test_from_end_to_end(make_artifact: Make, teacher: Path, tmp_path: Path) -> None:
    found = beside_teacher(make_artifact(verbalizers=LONG), teacher, tmp_path)
    assert found.not_measured == ()
    assert "one round only" in found.doubts[0]
    assert [side.name for side in found.teachers] == ["teacher-fp32", "teacher-fp32-cached"]
    assert found.queries == 6 + 4
    whole, cached = found.teachers
    # Reading demonstrations anew or from the cache is the same computation.
    assert whole.accuracy == cached.accuracy
    assert cached.flops_per_query is not None
    assert whole.flops_per_query is not None
    assert cached.flops_per_query < whole.flops_per_query
    assert [len(run.query_samples_ms) for run in found.artifact.rounds] == [10]
    assert min(run.demonstrations_ms for run in cached.rounds) > 0
    assert {run.demonstrations_ms for run in (*whole.rounds, *found.artifact.rounds)} == {0.0}
    # 4 demonstrations of 4 words and a label, behind one token that the tokenizer puts first; no separator.
    labels = sum(len(LONG[name].split()) for name in ("entailment", "contradiction")) * 2
    assert found.demonstration_tokens == 1 + 4 * 4 + labels
    assert [entry.teacher for entry in found.pairings] == ["teacher-fp32", "teacher-fp32-cached"]
    assert [test.examples for test in found.pairings[0].tests] == [6, 4]
    assert Headline.model_validate_json(found.model_dump_json()) == found
    tables = headline_tables(found)
    assert [facts.heading for facts in tables] == ["Headline", "Artifact over teacher"]
    assert all(len(row) == len(facts.headers) for facts in tables for row in facts.rows)
    # Guesses of 2 labels on 6 queries: up to 0.5 + 1.96 * sqrt(0.25 / 6) = 0.90 are chance.
    for side, share, told in ((whole, 0.89, True), (whole, 0.91, False)):
        row = side.accuracy[0].model_copy(update={"balanced_accuracy": share})
        assert bool(at_chance([side.model_copy(update={"accuracy": (row,)})], labels=2)) is told


def test_the_teacher_answers_alike_with_and_without_its_cache(teacher: Path) -> None:
    """Labels of one token and of several, whose cache is cut back; against whole prompts on paper."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(str(teacher)).eval()
    shown, queries = np.array([0, 9, 10, 3, 11]), [np.array([12, 13]), np.array([14, 15, 16])]

    def whole(ids: list[int]) -> np.ndarray:
        return np.asarray(model(torch.tensor([ids])).logits[0, -1].log_softmax(-1))

    for answers in ([[3], [4]], [[3, 5], [4, 6, 7]]):
        with torch.inference_mode():
            found = [
                [
                    label_scores(asked, query, answers)
                    for asked in [AskedTeacher(model, shown, cached=cached, keeps=len(answers[0]) > 1)]
                    for query in queries
                ]
                for cached in (False, True)
            ]
            expected = [
                [
                    sum(whole([*shown, *query, *answer[:n]])[token] for n, token in enumerate(answer))
                    for answer in answers
                ]
                for query in queries
            ]
        np.testing.assert_allclose(found, [expected, expected], rtol=0, atol=1e-4)
        assert np.abs(np.array(expected)[0] - np.array(expected)[1]).max() > 0.01  # negative control


@pytest.mark.parametrize("labels_alone", [False, True])
@pytest.mark.parametrize("sets", [0, 2])
def test_the_process_answers_as_edgeicl_run_does(
    make_artifact: Make, asked_of: Callable[..., Questions], labels_alone: bool, sets: int
) -> None:
    verbalizers = {"entailment": "yes", "contradiction": "no"} if labels_alone else LONG
    before = [np.array([0, 9, 10, 11]), np.array([0, 12, 13])][:sets]
    path = make_artifact(verbalizers=verbalizers, labels_alone=labels_alone, sets=before)
    opened, asked = open_artifact(path), asked_of(path)
    found = answer(dict(artifact_side(opened, asked, 1).request))
    scores = log_probabilities(np.array(found["scores"]))
    expected = np.log(probabilities(opened, asked.artifact_rows, threads=1))
    np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-3)
    assert np.abs(scores - expected[:, ::-1]).max() > 0.1  # negative control: queries do differ


def test_demonstrations_that_do_not_fit(make_artifact: Make, asked_of: Callable[..., Questions]) -> None:
    with pytest.raises(
        DataError, match=r"(?s)16 demonstrations are 81 tokens.*found 64 positions.*about 11 fit"
    ):
        asked_of(make_artifact(), demonstrations=16)


def test_no_demonstration_is_a_query(make_artifact: Make, teacher: Path, tmp_path: Path) -> None:
    """Both from one file of 12: 6 are asked, all 12 are left out of the demonstrations."""
    same = write_examples(tmp_path / "in.jsonl", 12, first=0)
    with pytest.raises(DataError, match="more examples than the training data has"):
        questions(
            open_artifact(make_artifact()), teacher, {"in_domain": same}, Shown(same, 2, True, 0),
            queries=6, base_folder=tmp_path,
        )  # fmt: skip


def test_passes_on_paper() -> None:
    answers = [(3,), (5, 6, 7)]
    assert passes_of(10, 100, answers, cached=True) == [Pass(10, 100), Pass(1, 110), Pass(1, 111)]
    assert passes_of(10, 100, answers, cached=False) == [Pass(110, 0), Pass(1, 110), Pass(1, 111)]


def test_costs_on_paper(make_artifact: Make) -> None:
    # TINY: 32 wide, 2 layers, 64 in the MLP, 40 tokens, 66 positions (64 and OPT's 2), a tied head.
    layer = 4 * (32 * 32 + 32) + (64 * 32 + 64) + (32 * 64 + 32) + 4 * 32
    weights = 40 * 32 + 2 * layer + 2 * 32
    assert weights_held(TINY, number_bytes=4) == 4 * (weights + 66 * 32)
    cost = teacher_cost(TINY, [Pass(5, 20)], number_bytes=2)
    # Keys and values: 2 layers, 2 heads of 16, of 25 positions.
    assert cost.bytes == 2 * (weights + 2 * 2 * 32 * 25)
    products = 2 * 5 * (4 * 32 * 32 + 2 * 64 * 32) + 40 * 32
    seen = 5 * 20 + 15
    assert cost.flops == 2 * products + 2 * 2 * 2 * 32 * seen
    opened = open_artifact(make_artifact(verbalizers=LONG))
    ours = artifact_cost(opened, 5, [(3,), (5, 6, 7)])
    passes = (5, 6, 7)  # positions that each of the three passes sees
    assert ours.bytes == 3 * opened.weight_bytes_per_token + sum(map(opened.cache_bytes, passes))


def test_the_command_says_what_is_missing(make_artifact: Make) -> None:
    artifact = str(make_artifact())
    done = CliRunner().invoke(headline_app, [artifact])
    assert isinstance(done.exception, DataError)
    assert "has no recipe.resolved.yaml" in str(done.exception)
    assert "--recipe" in str(done.exception)
    done = CliRunner().invoke(headline_app, [artifact, "--precision", "fp32,int8,int4"])
    assert isinstance(done.exception, SpecError)
    assert "'int8'" in str(done.exception)
    assert "'int4'" in str(done.exception)


def test_what_speaks_against_the_times_is_told() -> None:
    """On a busy computer times were off by factors of ten to a hundred, in favour of the artifact."""

    def beside(teacher: str, *values: float) -> AgainstTeacher:
        ratio = Ratio(
            median=float(np.median(values)), low=min(values), high=max(values), confidence=0.0, values=values
        )
        return AgainstTeacher(
            teacher=teacher, query=ratio, peak_rss=ratio, file_bytes=1.0, bytes_per_query=1.0,
            flops_per_query=None, tests=(),
        )  # fmt: skip

    assert doubts([beside("fp32", 1.0, 1.05)], [0.01]) == ()
    busy, noisy = doubts([beside("fp32", 1.0, 1.05), beside("bf16", 0.001, 0.01)], [0.02, 0.7])
    assert busy.startswith("not quiet: other processes took up to 70% of the cores' time")
    assert "beside bf16, most beside bf16: between 0.001 and 0.01" in noisy
    (single,) = doubts([beside("fp32", 1.0)], [])
    assert single.startswith("one round only")


def test_rounds_outlive_an_interrupt(
    make_artifact: Make, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three processes a round; the fifth is interrupted."""
    artifact = make_artifact(verbalizers=LONG)
    turns: list[str] = []
    interrupted_at = 4

    def run(side: Side) -> dict[str, Any]:
        if len(turns) == interrupted_at:
            raise KeyboardInterrupt
        turns.append(side.name)
        return made_up(side)

    monkeypatch.setattr(Side, "run", run)
    with pytest.raises(KeyboardInterrupt):
        beside_teacher(artifact, teacher, tmp_path, rounds=2)
    turns.clear()
    interrupted_at = 99
    found = beside_teacher(artifact, teacher, tmp_path, rounds=2)
    assert turns == ["teacher-fp32-cached", "teacher-fp32", "artifact"]
    assert len(found.artifact.rounds) == 2
    assert any(note.startswith("1 round was measured before an interruption") for note in found.notes)
    turns.clear()
    beside_teacher(artifact, teacher, tmp_path, rounds=2)  # what has ended is measured anew
    assert len(turns) == 6


def test_doubts_end_the_command_with_9(
    make_artifact: Make, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = make_artifact(verbalizers=LONG)
    monkeypatch.setattr(Side, "run", made_up)
    found = beside_teacher(artifact, teacher, tmp_path).model_copy(update={"doubts": ("noisy: far apart",)})
    monkeypatch.setattr("edgeicl.bench.headline.compare_teacher.headline", lambda *_, **__: found)
    monkeypatch.setattr("edgeicl.models.model_folder.model_folder", lambda *_, **__: teacher)
    monkeypatch.setenv("EDGEICL_CACHE_DIR", str(tmp_path / "cache"))
    command = [str(artifact), "--recipe", "quickstart", "--threads", "1"]
    done = CliRunner().invoke(headline_app, command)
    assert isinstance(done.exception, BenchError)
    assert "noisy: far apart" in str(done.exception)
    assert "Doubt: noisy: far apart." in done.stdout
    assert CliRunner().invoke(headline_app, [*command, "--accept-noise"]).exit_code == 0
