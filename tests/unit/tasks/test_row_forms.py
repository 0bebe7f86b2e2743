"""Rows without a header, under other names, of one kind, with answers of their own; what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeicl.errors import DataError
from edgeicl.specs.source import Source
from edgeicl.tasks.readers import read_examples

LABELS = ("entailment", "contradiction")
ROWS = [
    {"premise": 'he said "go"', "hypothesis": "a, b", "label": "entailment"},
    {"premise": "three", "hypothesis": "d", "label": "non-entailment"},
]


def _source(name: str, **changes: object) -> Source:
    return Source.model_validate({"source": name} | changes)


def test_a_file_without_a_header_and_columns_of_other_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('entailment,"a, b"\ncontradiction,c\n')
    source = _source("file:a.csv", columns=["label", "text"], rename={"text": "premise"})
    read = read_examples(source, labels=LABELS, base_folder=tmp_path)
    assert [(dict(one.columns), one.label) for one in read] == [
        ({"premise": "a, b"}, "entailment"),
        ({"premise": "c"}, "contradiction"),
    ]
    (tmp_path / "a.tsv").write_text('"quoted" one\tentailment\nx\tcontradiction\n')
    source = _source("file:a.tsv", columns=["text", "label"])
    assert read_examples(source, labels=LABELS, base_folder=tmp_path)[0].columns["text"] == '"quoted" one'


def test_rows_with_more_fields_than_names(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("id\ttext\tlabel\n1\tx\tA\tB\tentailment\n2\ty\tcontradiction\n")
    source = _source("file:a.tsv", columns=["id", "text", "...", "label"], drop_labels=["label"])
    read = read_examples(source, labels=LABELS, base_folder=tmp_path)
    assert [(dict(one.columns), one.label) for one in read] == [
        ({"id": "1", "text": "x"}, "entailment"),
        ({"id": "2", "text": "y"}, "contradiction"),
    ]
    (tmp_path / "a.tsv").write_text("1\tentailment\n")
    with pytest.raises(DataError, match=r"a.tsv line 1: found 2 fields; expected at least 3: id, text, label"):
        read_examples(source, labels=LABELS, base_folder=tmp_path)


def test_objects_inside_a_row_are_columns(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"target": {"span": {"text": "it"}, "n": 2}, "label": "entailment"}\n')
    source = _source("file:a.jsonl", rename={"target.span.text": "word"})
    (only,) = read_examples(source, labels=LABELS, base_folder=tmp_path)
    assert dict(only.columns) == {"word": "it", "target.n": "2"}


def test_rows_of_a_kind_and_groups(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    source = _source("file:a.jsonl", where={"hypothesis": "a, b"}, breakdown="premise")
    (only,) = read_examples(source, labels=LABELS, base_folder=tmp_path)
    assert (only.group, only.columns["premise"]) == ('he said "go"', 'he said "go"')


def test_a_renamed_column_takes_the_place_of_another(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"label": 3, "gold": "entailment", "text": "x"}\n')
    source = _source("file:a.jsonl", rename={"gold": "label"})
    (only,) = read_examples(source, labels=LABELS, base_folder=tmp_path)
    assert (only.label, dict(only.columns)) == ("entailment", {"text": "x"})


def test_options_of_a_row(tmp_path: Path) -> None:
    rows = [
        {"task": "t", "input": "x", "output": "yes", "options": ["yes", "no"]},
        {"task": "t", "input": "y", "output": "maybe", "options": []},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = _source(
        "file:a.jsonl",
        label="output",
        options="options",
        map_labels={"yes": "entailment", "no": "contradiction"},
    )
    read = read_examples(source, labels=(*LABELS, "maybe"), base_folder=tmp_path)
    assert [one.options for one in read] == [("entailment", "contradiction"), ()]
    assert (
        read[0]
        != read_examples(
            source.model_copy(update={"options": None}), labels=(*LABELS, "maybe"), base_folder=tmp_path
        )[0]
    )


@pytest.mark.parametrize(
    ("name", "content", "keys", "message"),
    [
        (
            "a.csv",
            "entailment,x\ny\n",
            {"columns": ["label", "text"]},
            r"a\.csv line 2: found 1 fields; expected 2",
        ),
        ("a.jsonl", '{"label": "x"}\n', {"columns": ["label"]}, r"`columns` for JSONL.*\nnext: .*`rename`"),
        ("a.jsonl", '{"label": "x"}\n', {"rename": {"txt": "t"}}, r"line 1: found no column 'txt' to rename"),
        (
            "a.jsonl",
            '{"label": "x"}\n',
            {"where": {"lable": "x"}},
            r"line 1: .*'lable' for the where.*did you mean",
        ),
        ("a.jsonl", '{"label": "entailment"}\n', {"breakdown": "kind"}, r"line 1: .*'kind' for the breakdown"),
        (
            "a.jsonl",
            '\n{"label": "entailment", "o": "x"}\n',
            {"options": "o"},
            r"line 2: found 'x' in the options",
        ),
        (
            "a.jsonl",
            '{"label": "entailment", "o": ["contradiction"]}\n',
            {"options": "o"},
            r"line 1: found label 'entailment'; expected one of its options: contradiction",
        ),
        (
            "a.jsonl",
            '{"label": "entailment", "o": ["no"]}\n',
            {"options": "o"},
            r"line 1: found the option 'no'",
        ),
    ],
)
def test_bad_rows_are_named(
    tmp_path: Path, name: str, content: str, keys: dict[str, object], message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_examples(_source(f"file:{name}", **keys), labels=LABELS, base_folder=tmp_path)
