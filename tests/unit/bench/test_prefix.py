"""Artifacts whose queries stand behind demonstrations, asked, measured, and given other ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeicl.bench.artifact import open_artifact
from edgeicl.bench.classify import classify, evaluate, probabilities, query_ids, task_of
from edgeicl.bench.generate import generate
from edgeicl.bench.stage import bench
from edgeicl.bench.workload import Workload
from edgeicl.errors import DataError, IntegrityError
from edgeicl.models.prefix_file import prefix_tokens, read_prefix, write_prefix
from edgeicl.new_prefix import demonstration_sets, replace_prefix
from edgeicl.specs.source import Source
from edgeicl.store import file_sha256
from edgeicl.tasks.example import Example

Make = Callable[..., Path]
SETS = [np.array(ids) for ids in ([0, 9, 10, 3, 11], [0, 12, 4, 13, 14, 15, 3], [0, 20, 21, 4])]
MULTI = {"entailment": "yes at all", "neutral": "no", "contradiction": "not at"}
EXAMPLES = [
    Example(
        {"premise": f"w{n} w{n + 1}", "hypothesis": f"w{2 * n % 30}"}, ("entailment", "contradiction")[n % 2]
    )
    for n in range(12)
]


def from_whole_prompts(folder: Path, rows: list[list[int]]) -> np.ndarray:
    """Probabilities [S, N, L] from prompts that hold the demonstrations' tokens, with no prefix loaded."""
    artifact = open_artifact(folder)
    answers = list(task_of(artifact).verbalizer_tokens.values())
    decoder = artifact.decoder(threads=1, context_tokens=64)
    scores = np.zeros((len(SETS), len(rows), len(answers)))
    for s, before in enumerate(SETS):
        for n, row in enumerate(rows):
            for column, answer in enumerate(answers):
                for count, token in enumerate(answer):
                    logits = decoder.prefill(np.array([[*before, *row, *answer[:count]]]))[0].astype(np.float64)
                    scores[s, n, column] += logits[token] - np.logaddexp.reduce(logits)
    shares = np.exp(scores)
    return np.asarray(shares / shares.sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("batch_size", [1, 5])
def test_probabilities_of_each_set_are_those_of_whole_prompts(make_artifact: Make, batch_size: int) -> None:
    folder = make_artifact(verbalizers=MULTI, sets=SETS)
    artifact = open_artifact(folder)
    rows = query_ids(artifact, task_of(artifact), EXAMPLES[:5])
    assert rows[0] == [8, 9, 8]  # no leading token: it stands in the prefix
    found = probabilities(artifact, rows, threads=1, batch_size=batch_size)
    # Rows of the prefix are computed with exact activations, those of a whole prompt with int8 ones: 0.013
    # was seen, where other demonstrations move a probability by up to 0.27.
    np.testing.assert_allclose(found, from_whole_prompts(folder, rows), rtol=0, atol=0.03)
    assert np.abs(found - found[[1, 2, 0]]).max() > 0.25  # negative control


def test_the_majority_of_sets_answers(make_artifact: Make, tmp_path: Path) -> None:
    folder = make_artifact(sets=SETS)
    artifact = open_artifact(folder)
    labels = list(task_of(artifact).verbalizers)
    by_set = probabilities(artifact, query_ids(artifact, task_of(artifact), EXAMPLES), threads=1)
    expected = []
    for number, example in enumerate(EXAMPLES):
        answer = classify(artifact, example.columns, threads=1)
        voices = [labels[int(shares.argmax())] for shares in by_set[:, number]]
        assert answer.votes == {label: voices.count(label) for label in labels}
        assert answer.label == max(labels, key=voices.count)
        assert answer.probabilities == pytest.approx(
            dict(zip(labels, by_set[:, number].mean(axis=0), strict=True))
        )
        expected.append(answer.label)
    rows = [{**example.columns, "label": example.label} for example in EXAMPLES]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    measured = evaluate(folder, Source(source="file:data.jsonl"), tmp_path, threads=1)
    right = [label == example.label for label, example in zip(expected, EXAMPLES, strict=True)]
    assert measured.accuracy == pytest.approx(np.mean(right))


def test_without_a_prefix_there_is_one_vote(make_artifact: Make) -> None:
    artifact = open_artifact(make_artifact())
    assert artifact.prefixes == []
    assert sum(classify(artifact, EXAMPLES[0].columns, threads=1).votes.values()) == 1
    assert "prefix" not in json.loads((artifact.path / "task.json").read_text())


def test_room_is_what_the_longest_set_leaves(make_artifact: Make) -> None:
    artifact = open_artifact(make_artifact(sets=SETS))
    with pytest.raises(DataError, match=r"found 57 tokens; expected 1 to 56 behind 7 tokens of demonstrations"):
        classify(artifact, {"premise": "w1 " * 56, "hypothesis": "w2"}, threads=1)
    with pytest.raises(
        DataError, match=r"the text is 2 tokens long and 58 more were asked for; .* 59 together"
    ):
        generate(artifact, "w1 w2", tokens=58, threads=1)
    decoder = artifact.decoder(threads=1, context_tokens=64)
    decoder.load_prefix(artifact.prefixes[0])
    text = artifact.tokenizer.decode(decoder.generate([9, 10], 4))
    assert generate(artifact, "w1 w2", tokens=4, threads=1) == text


def test_bench_says_what_stands_before(make_artifact: Make) -> None:
    folder = make_artifact(sets=SETS)
    result = bench(folder, Workload(1, 8, 4, repetitions=2, warmup_repetitions=1))
    assert result.conditions.prefix_tokens == 5
    opened = open_artifact(folder)
    assert result.bytes_per_token == opened.weight_bytes_per_token + opened.cache_bytes(5 + 8 + 2.5)
    cut = bench(folder, Workload(1, 60, 4, repetitions=2, warmup_repetitions=1))
    assert cut.conditions.prompt_tokens == 64 - 5 - 4


def _listed(folder: Path, name: str) -> None:
    """Puts the hash of a changed file into the manifest."""
    manifest = json.loads((folder / "edgeicl.json").read_text())
    manifest["files"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "edgeicl.json").write_text(json.dumps(manifest))


def test_a_prefix_that_is_not_the_one_written_is_refused(make_artifact: Make) -> None:
    folder = make_artifact(sets=SETS)
    path = folder / "prefix.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"prefix\.safetensors: found SHA-256"):
        open_artifact(folder)
    path.unlink()
    with pytest.raises(IntegrityError, match=r"prefix\.safetensors: missing"):
        open_artifact(folder)


@pytest.mark.parametrize("spoil", ["shorter", "fewer", "narrower", "broken"])
def test_a_prefix_of_another_artifact_is_refused(make_artifact: Make, spoil: str) -> None:
    folder = make_artifact(sets=SETS)
    path = folder / "prefix.safetensors"
    sets, ids = read_prefix(path)
    kept = [{name: np.array(values) for name, values in rows.items()} for rows in sets]
    if spoil == "shorter":
        kept[1] = {name: values[:, :4] for name, values in kept[1].items()}
    elif spoil == "fewer":
        kept, ids = kept[:2], ids[:2]
    elif spoil == "narrower":
        kept = [{name: values[..., :8] for name, values in rows.items()} for rows in kept]
    write_prefix(path, kept, [None if tokens is None else np.array(tokens) for tokens in ids])
    if spoil == "broken":
        path.write_bytes(b"rows")
    _listed(folder, "prefix.safetensors")
    with pytest.raises(IntegrityError, match=r"prefix\.safetensors (has sets of|can't be read)"):
        classify(open_artifact(folder), EXAMPLES[0].columns, threads=1)


def test_other_demonstrations_make_another_artifact(make_artifact: Make, tmp_path: Path) -> None:
    folder, output = make_artifact(sets=SETS), tmp_path / "second"
    opened = open_artifact(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    sets = demonstration_sets(opened, EXAMPLES, count=4, sets=3)
    replace_prefix(opened, sets, output=output)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    second = open_artifact(output)
    assert [prefix_tokens(rows) for rows in second.prefixes] == [len(ids) for ids in sets]
    assert second.manifest.files == {
        path.name: file_sha256(path) for path in output.iterdir() if path.name != "edgeicl.json"
    }
    for file in {entry.file for entry in second.manifest.ledger}:
        counted = sum(entry.bytes for entry in second.manifest.ledger if entry.file == file)
        assert counted == (output / file).stat().st_size, file
    assert second.manifest.accuracy == ()
    assert [entry.what for entry in second.manifest.deviations] == ["measurements"]
    first, other = (
        probabilities(each, query_ids(each, task_of(each), EXAMPLES), threads=1) for each in (opened, second)
    )
    assert np.abs(first - other).max() > 0.1
    # The same demonstrations again give the same rows.
    replace_prefix(second, SETS, output=output)
    for rows, same in zip(opened.prefixes, open_artifact(output).prefixes, strict=True):
        for name, values in rows.items():
            np.testing.assert_array_equal(same[name], values)


def test_demonstrations_stand_as_at_compile_time(make_artifact: Make) -> None:
    """Leading token, then for each: query, answer, separator (no token here)."""
    opened = open_artifact(make_artifact(sets=SETS))
    (ids,) = demonstration_sets(opened, EXAMPLES[1:3])
    assert ids.tolist() == [0, 9, 10, 10, 4, 10, 11, 12, 3]


def test_a_set_that_is_too_long(make_artifact: Make, caplog: pytest.LogCaptureFixture) -> None:
    """64 positions less 12 for a query: a leading token and 12 demonstrations of 4 are 49; 13 are too many."""
    opened = open_artifact(make_artifact(sets=SETS))
    with pytest.raises(DataError, match=r"15 demonstrations take 61 tokens; found room for 52, .*: 12 fit"):
        demonstration_sets(opened, [*EXAMPLES, *EXAMPLES[:3]])
    (ids,) = demonstration_sets(opened, [*EXAMPLES, *EXAMPLES[:3]], drop_to_fit=True)
    assert len(ids) == 49
    assert "12 fit, the rest is left out" in caplog.text


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ([np.zeros((3, 32), np.float32)], "stands behind tokens; found vectors"),
        ([np.array([0, 40])], "token 40 is outside the vocabulary of 40"),
        ([np.zeros(53, np.int64)], "takes 53 positions; expected 1 to 52"),
        ([np.zeros(0, np.int64)], "takes 0 positions"),
    ],
)
def test_nothing_is_written_on_error(
    make_artifact: Make, sets: list[Any], message: str, tmp_path: Path
) -> None:
    opened = open_artifact(make_artifact(sets=SETS))
    with pytest.raises(DataError, match=message):
        replace_prefix(opened, sets, output=tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_vectors_are_given_to_an_artifact_of_vectors(make_artifact: Make, tmp_path: Path) -> None:
    """The way for a hypernetwork's output after compilation."""
    random = np.random.default_rng(0)
    first, second = (random.normal(size=(6, 32)).astype(np.float32) for _ in range(2))
    opened = open_artifact(make_artifact(sets=[first]))
    replace_prefix(opened, [second], output=tmp_path / "second")
    direct = open_artifact(make_artifact("direct", sets=[second]))
    for name, values in open_artifact(tmp_path / "second").prefixes[0].items():
        np.testing.assert_array_equal(values, direct.prefixes[0][name])
    with pytest.raises(DataError, match="vectors of 31 numbers; expected 32"):
        replace_prefix(opened, [second[:, 1:]], output=tmp_path / "third")


def test_an_artifact_without_demonstrations_has_none_to_replace(make_artifact: Make) -> None:
    with pytest.raises(DataError, match=r"answers without demonstrations: it has no prefix\.safetensors"):
        demonstration_sets(open_artifact(make_artifact()), EXAMPLES)
