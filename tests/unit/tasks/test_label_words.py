"""Labels of the data as label words, and LAMA's templates as patterns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeicl.errors import DataError, SpecError
from edgeicl.specs.lama_template import around_answer
from edgeicl.specs.loading import dump_yaml, parse_spec
from edgeicl.specs.recipe import Recipe
from edgeicl.tasks.label_words import with_label_words

RECIPE = """
version: 1
name: r
task:
  pattern: "[X] was born in [Y] ."
  label_pattern: " {label}"
  separator: "\\n"
  train: {source: "file:train.jsonl", label: obj}
  in_domain: {source: "file:test.jsonl", label: obj, options: near, map_labels: {Lutetia: Paris}}
distill:
  method: none
  student: {model: "builtin:nli-student"}
"""


def recipe(**changes: str) -> Recipe:
    text = RECIPE
    for old, new in changes.items():
        text = text.replace(old, new)
    return parse_spec(text, Recipe, source="r.yaml")


def write(folder: Path, train: list[str], test: list[tuple[str, list[str]]]) -> None:
    (folder / "train.jsonl").write_text("".join(json.dumps({"sub": "a", "obj": one}) + "\n" for one in train))
    (folder / "test.jsonl").write_text(
        "".join(json.dumps({"sub": "b", "obj": one, "near": near}) + "\n" for one, near in test)
    )


def test_all_labels_and_options_become_words(tmp_path: Path) -> None:
    write(tmp_path, ["Rome", "Oslo", "Rome"], [("Lutetia", ["Lutetia", "Bonn"]), ("Oslo", ["Oslo"])])
    found = with_label_words(recipe(), tmp_path)
    assert found.task.verbalizers == {"Bonn": " Bonn", "Oslo": " Oslo", "Paris": " Paris", "Rome": " Rome"}
    assert (found.task.pattern, found.task.separator) == ("{sub} was born in", " .\n")
    assert parse_spec(dump_yaml(found), Recipe, source="again") == found
    assert with_label_words(found, tmp_path / "absent") is found


def test_words_that_are_written_stay(tmp_path: Path) -> None:
    written = recipe(
        **{"[X] was born in [Y] .": "{sub}", 'label_pattern: " {label}"': "verbalizers: {Paris: a, b: b}"}
    )
    assert with_label_words(written, tmp_path) is written


def test_one_label_is_too_few(tmp_path: Path) -> None:
    write(tmp_path, ["Rome"], [("Rome", ["Rome"])])
    with pytest.raises(DataError, match=r"label_pattern: found the labels \['Rome'\].*at least two"):
        with_label_words(recipe(), tmp_path)


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        ("[X] was born in [Y] .", ("{sub} was born in", " .")),
        ("[X] plays [Y] music .", ("{sub} plays", " music .")),
        ("The capital of [X] is [Y]", ("The capital of {sub} is", "")),
    ],
)
def test_templates_on_paper(template: str, parts: tuple[str, str]) -> None:
    assert around_answer(template) == parts


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"[X] was born in [Y] .": "[Y] took part in [X] ."},
            r"line 5 .*task\.pattern .*its answer before its subject",
        ),
        ({"[X] was born in [Y] .": "[X] was born"}, r"line 5 .*names no column"),
        ({" {label}": " {obj}"}, r"line 6 .*label_pattern .*expected \{label\} and no other column"),
        (
            {'  label_pattern: " {label}"\n': ""},
            r"line 4 .*0 verbalizers; expected at least 2, or a label_pattern",
        ),
    ],
)
def test_what_can_not_be_used_is_told_with_its_line(changes: dict[str, str], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        recipe(**changes)
