from __future__ import annotations

import csv
import gzip
import json
import re
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from edgeicl.errors import DataError
from edgeicl.models.model_folder import BUILTIN
from edgeicl.specs import builtin_names
from edgeicl.specs.source import Source
from edgeicl.tasks import nli_family
from edgeicl.tasks.example import Example
from edgeicl.tasks.readers import read_examples

LABELS = ("entailment", "contradiction")
ROWS = [
    {"premise": 'he said "go"', "hypothesis": "a, b", "label": "entailment"},
    {"premise": "zwei Wörter", "hypothesis": "c", "label": "neutral"},
    {"premise": "three", "hypothesis": "d", "label": "non-entailment"},
]
SHARED = Path(__file__).parents[4] / "shared" / "data"


def _jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))


def _csv(path: Path) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(ROWS[0]))
        writer.writeheader()
        writer.writerows(ROWS)


def _tsv(path: Path) -> None:
    lines = ["\t".join(ROWS[0]), *("\t".join(row.values()) for row in ROWS)]
    path.write_text("\n".join(lines) + "\n")


def _parquet(path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)


def _source(name: str, **changes: object) -> Source:
    return Source.model_validate({"source": name} | changes)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("name", "write"), [("a.jsonl", _jsonl), ("a.csv", _csv), ("a.tsv", _tsv), ("a.parquet", _parquet)]
)
def test_every_format_reads_the_same(
    tmp_path: Path, name: str, write: Callable[[Path], None], zipped: bool
) -> None:
    write(tmp_path / name)
    if zipped:
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
        name += ".gz"
    source = _source(f"file:{name}", drop_labels=["neutral"], map_labels={"non-entailment": "contradiction"})
    read = read_examples(source, labels=LABELS, base_folder=tmp_path)
    assert [(dict(example.columns), example.label) for example in read] == [
        ({"premise": 'he said "go"', "hypothesis": "a, b"}, "entailment"),
        ({"premise": "three", "hypothesis": "d"}, "contradiction"),
    ]


def test_limit_counts_kept_rows(tmp_path: Path) -> None:
    _jsonl(tmp_path / "a.jsonl")
    labels = {"neutral": "entailment", "non-entailment": "contradiction"}
    source = _source("file:a.jsonl", drop_labels=["entailment"], map_labels=labels, limit=2)
    kept = read_examples(source, labels=LABELS, base_folder=tmp_path)
    assert [example.columns["premise"] for example in kept] == ["zwei Wörter", "three"]


def test_where_keeps_rows_whose_columns_hold_a_text(tmp_path: Path) -> None:
    _jsonl(tmp_path / "a.jsonl")
    labels = {"neutral": "entailment", "non-entailment": "contradiction"}
    source = _source("file:a.jsonl", map_labels=labels, where={"premise": "three", "label": "non-entailment"})
    (kept,) = read_examples(source, labels=LABELS, base_folder=tmp_path)
    assert kept.columns["hypothesis"] == "d"
    nowhere = source.model_copy(update={"where": {"premise": "four"}})
    with pytest.raises(DataError, match=r"found no example; expected at least one after where"):
        read_examples(nowhere, labels=LABELS, base_folder=tmp_path)
    unknown = source.model_copy(update={"where": {"premis": "three"}})
    with pytest.raises(DataError, match=r"no column 'premis' for the where; did you mean 'premise'\?"):
        read_examples(unknown, labels=LABELS, base_folder=tmp_path)


def test_a_builtin_limit_counts_the_rows_of_a_phenomenon(tmp_path: Path) -> None:
    source = _source("builtin:nli", split="test", limit=20, where={"phenomenon": "place"})
    read = read_examples(source, labels=LABELS, base_folder=tmp_path)
    assert [example.columns["phenomenon"] for example in read] == ["place"] * 20
    wrong = source.model_copy(update={"where": {"phenomenon": "plase"}})
    with pytest.raises(DataError, match=r"no phenomenon 'plase' in split 'test'; did you mean 'place'\?"):
        read_examples(wrong, labels=LABELS, base_folder=tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "a.jsonl",
            '{"label": "entailment"}\nnot json\n',
            r"a\.jsonl line 2: found 'not json'; expected one JSON",
        ),
        ("a.jsonl", '{"label": "entailment"}\n\n[1]\n', r"line 3: found '\[1\]'; expected a JSON object"),
        (
            "a.jsonl",
            '{"label": "entailmint"}\n',
            r"line 1: found label 'entailmint'.*did you mean 'entailment'",
        ),
        ("a.jsonl", '{"lable": "x"}\n', r"line 1: found no column 'label'.*did you mean 'lable'"),
        ("a.jsonl", '{"label": null}\n', r"line 1: found None in the label column"),
        ("a.csv", "premise,label\nx,entailment\ny\n", r"line 3: found 1 fields; expected 2: premise, label"),
        ("a.csv", "label,label\nx,y\n", r"distinct names"),
        ("a.csv", 'label\n"x" y\n', r"a\.csv line 2: can't be read as CSV"),
        ("a.jsonl.gz", "not gzip", r"can't be read as JSONL"),
        ("a.parquet", "not parquet", r"can't be read as Parquet"),
        ("a.txt", "x", r"found the extension '\.txt'; expected one of \.jsonl"),
        ("a.jsonl", "", r"found no example"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_examples(_source(f"file:{name}"), labels=LABELS, base_folder=tmp_path)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet.gz", "a.parquet"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    plain = tmp_path / name.removesuffix(".gz")
    _parquet(plain) if ".parquet" in name else _jsonl(plain)
    whole = gzip.compress(plain.read_bytes()) if name.endswith(".gz") else plain.read_bytes()
    middle = len(whole) // 2
    (tmp_path / name).write_bytes(whole[:12] + bytes(b ^ 0xFF for b in whole[12:middle]) + whole[middle:])
    with pytest.raises(DataError, match=rf"{name}: can't be read as (JSONL|Parquet)"):
        read_examples(_source(f"file:{name}"), labels=LABELS, base_folder=tmp_path)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _jsonl(tmp_path / "a.jsonl")

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(DataError, match=r"a\.jsonl: can't be read as JSONL: .*Permission denied"):
        read_examples(_source("file:a.jsonl"), labels=LABELS, base_folder=tmp_path)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"source": "file:~nobody_there/a.csv"}, "found no such file"),
        ({"source": "hub:~nobody_there/set", "split": "train"}, "found no folder"),
    ],
)
def test_the_home_of_nobody(tmp_path: Path, source: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_examples(Source.model_validate(source), labels=LABELS, base_folder=tmp_path)


def test_missing_file_and_bad_mapping(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found no such file"):
        read_examples(_source("file:none.csv"), labels=LABELS, base_folder=tmp_path)
    source = _source("file:none.csv", map_labels={"x": "entailement"})
    with pytest.raises(DataError, match="did you mean 'entailment'"):
        read_examples(source, labels=LABELS, base_folder=tmp_path)


@pytest.fixture
def class_labelled() -> datasets.Dataset:
    features = datasets.Features(
        {
            "premise": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["entailment", "contradiction"]),
        }
    )
    return datasets.Dataset.from_dict({"premise": ["x", "y"], "label": [1, 0]}, features=features)


def test_saved_folder_maps_class_labels(tmp_path: Path, class_labelled: datasets.Dataset) -> None:
    datasets.DatasetDict({"train": class_labelled}).save_to_disk(str(tmp_path / "saved"))
    read = read_examples(_source("hub:./saved", split="train"), labels=LABELS, base_folder=tmp_path)
    assert [example.label for example in read] == ["contradiction", "entailment"]
    with pytest.raises(DataError, match=r"no split 'trane'; did you mean 'train'\? allowed: train"):
        read_examples(_source("hub:./saved", split="trane"), labels=LABELS, base_folder=tmp_path)


def test_hub_folder_of_parquet_files(
    tmp_path: Path, class_labelled: datasets.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "set" / "data").mkdir(parents=True)
    class_labelled.to_parquet(str(tmp_path / "set" / "data" / "train-00000-of-00001.parquet"))
    class_labelled.select([0]).to_parquet(str(tmp_path / "set" / "data" / "test-00000-of-00001.parquet"))
    read = read_examples(_source("hub:set", split="test"), labels=LABELS, base_folder=tmp_path)
    assert [(example.columns["premise"], example.label) for example in read] == [("x", "contradiction")]


def test_a_saved_folder_that_is_not_whole(tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    with pytest.raises(DataError, match=r"hub:\./saved: .*saved can't be read as a data set"):
        read_examples(_source("hub:./saved", split="train"), labels=LABELS, base_folder=tmp_path)


def test_missing_local_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found no folder"):
        read_examples(_source("hub:./absent", split="train"), labels=LABELS, base_folder=tmp_path)


def test_builtin_is_deterministic_and_its_splits_are_disjoint(tmp_path: Path) -> None:
    texts = {}
    for split in ("train", "validation", "test", "out_of_domain", "out_of_domain_train"):
        source = _source("builtin:nli", split=split, limit=200, seed=3)
        read = read_examples(source, labels=LABELS, base_folder=tmp_path)
        assert read == read_examples(source, labels=LABELS, base_folder=tmp_path)
        assert len(read) == 200
        assert {example.label for example in read} == set(LABELS)
        texts[split] = {(example.columns["premise"], example.columns["hypothesis"]) for example in read}
    assert sum(map(len, texts.values())) == len(set.union(*texts.values())) == 1000


def test_a_builtin_limit_counts_kept_rows(tmp_path: Path) -> None:
    source = _source("builtin:nli", split="test", limit=50, drop_labels=["contradiction"])
    read = read_examples(source, labels=LABELS, base_folder=tmp_path)
    assert len(read) == 50
    assert {example.label for example in read} == {"entailment"}
    with pytest.raises(DataError, match="found no example"):
        read_examples(source.model_copy(update={"drop_labels": LABELS}), labels=LABELS, base_folder=tmp_path)


def test_a_builtin_limit_beyond_what_the_split_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nli_family, "MISSES_IN_A_ROW", 1000)
    source = _source("builtin:nli", split="out_of_domain", limit=100_000)
    with pytest.raises(DataError, match=r"found about [0-9,]+ rows in split 'out_of_domain'.*100,000"):
        read_examples(source, labels=LABELS, base_folder=tmp_path)


def test_builtin_doubt_contradicts_entailment(tmp_path: Path) -> None:
    def labels(task: str) -> list[str]:
        source = _source(f"builtin:nli{task}", split="train", limit=50)
        return [example.label for example in read_examples(source, labels=LABELS, base_folder=tmp_path)]

    other = {nli_family.YES: nli_family.NO, nli_family.NO: nli_family.YES}
    assert labels("/doubt") == [other[label] for label in labels("")]


def test_rows_without_text_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.csv").write_text("a,b,label\nx,y,entailment\n , y,entailment\nx,,contradiction\n")
    assert len(read_examples(_source("file:a.csv"), labels=LABELS, base_folder=tmp_path)) == 3
    assert "file:a.csv: 2 of 3 rows have a column without text, first" in caplog.text
    assert "a.csv line 3" in caplog.text


def test_builtin_names_are_those_there_are() -> None:
    assert set(builtin_names.TASKS) == set(nli_family.TASKS)
    for split in builtin_names.SPLITS:
        assert (
            len(read_examples(_source("builtin:nli", split=split, limit=4), labels=LABELS, base_folder=Path()))
            == 4
        )
    assert set(builtin_names.MODELS) == {path.name for path in BUILTIN.iterdir() if path.is_dir()}


@pytest.mark.skipif(not SHARED.exists(), reason="real data (shared/data beside the repository) is absent")
def test_real_mnli_and_hans() -> None:
    mnli = _source("file:nli_mnli/mnli_dev_matched.jsonl", drop_labels=["neutral"])
    assert len(read_examples(mnli, labels=LABELS, base_folder=SHARED)) == 3479 + 3213
    hans = _source(
        "file:nli_hans/hans_generated_seed1.jsonl.gz", map_labels={"non-entailment": "contradiction"}
    )
    read = read_examples(hans, labels=LABELS, base_folder=SHARED)
    assert len(read) == 30_000
    assert re.match(r".*line 1$", read[0].where)


def test_a_limit_samples_the_whole_file_by_the_seed(tmp_path: Path) -> None:
    """Files such as HANS are sorted by label: their first rows would hold one label only."""
    rows = [{"text": f"t{index}", "label": "entailment" if index < 500 else "neutral"} for index in range(1000)]
    (tmp_path / "sorted.jsonl").write_text("\n".join(json.dumps(row) for row in rows))

    def read(seed: int) -> list[Example]:
        source = _source("file:sorted.jsonl", map_labels={"neutral": "contradiction"}, limit=100, seed=seed)
        return read_examples(source, labels=LABELS, base_folder=tmp_path)

    first = read(0)
    assert len(first) == 100
    assert 30 < sum(example.label == "entailment" for example in first) < 70
    assert first == read(0)
    assert first != read(1)


@pytest.mark.parametrize(
    ("name", "asked"),
    [
        ("nyu-mll/multi_nli", ("nyu-mll/multi_nli", None)),
        ("nyu-mll/glue/rte", ("nyu-mll/glue", "rte")),
        ("imdb", ("imdb", None)),
    ],
)
def test_names_on_the_hub_and_their_configurations(
    tmp_path: Path,
    class_labelled: datasets.Dataset,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    asked: tuple[str, str | None],
) -> None:
    called = []

    def load(path: str, config: str | None, *, split: str) -> datasets.Dataset:
        called.append((path, config, split))
        return class_labelled.rename_column("label", "gold")

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = _source(f"hub:{name}", split="train", rename={"gold": "label"})
    read = read_examples(source, labels=LABELS, base_folder=tmp_path)
    assert called == [(*asked, "train")]
    assert [one.label for one in read] == ["contradiction", "entailment"]  # a class label, under its new name
