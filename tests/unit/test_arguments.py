"""Free-form arguments of the runtime commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeicl.arguments import columns_given, file_to_write, limits_given, limits_like, source_given
from edgeicl.bench.devices.device import Limits
from edgeicl.errors import SpecError
from edgeicl.specs.pattern import pattern_columns
from edgeicl.specs.source import Source


def source(data: str, *, split: str | None = None, map_labels: tuple[str, ...] = ()) -> Source:
    return source_given(data, command="eval", option="--data", split=split, limit=None, map_labels=map_labels)


def test_a_pattern_that_repeats_a_column_needs_its_text_once() -> None:
    columns = pattern_columns("{a} or {b}: {a}?")
    assert columns_given(["x", "y"], columns) == {"a": "x", "b": "y"}
    assert columns_given(["b=y", "a=x=z"], columns) == {"a": "x=z", "b": "y"}
    for texts in (["x", "y", "z"], ["x"], ["a=x", "y"], ["a=x", "b=y", "a=z"]):
        with pytest.raises(SpecError, match="expected one text for each of a, b"):
            columns_given(texts, columns)


@pytest.mark.parametrize(
    ("texts", "found"), [(["x"], "1 text;"), (["a=x", "y"], "2 texts, with names for a;"), ([], "0 texts;")]
)
def test_texts_that_do_not_match_the_columns_are_counted(texts: list[str], found: str) -> None:
    with pytest.raises(SpecError, match=rf"TEXT +{found} expected one text for each of a, b\nnext: give a='"):
        columns_given(texts, ("a", "b"))


def test_a_file_is_looked_for_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.csv").mkdir()
    for name, found in (("a.csv", f"no file {tmp_path}/a.csv"), ("folder.csv", f"{tmp_path}/folder.csv is a")):
        with pytest.raises(
            SpecError, match=rf"command line +--data +{found}.*; expected a data file"
        ) as caught:
            source(f"file:{name}")
        assert "recipe" not in str(caught.value)


def test_a_source_from_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").touch()
    assert source("file:a.csv", map_labels=("x=y",)).map_labels == {"x": "y"}
    assert source("builtin:nli", split="test").split == "test"


def test_problems_name_the_options_and_come_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").touch()
    with pytest.raises(SpecError) as caught:
        source("train.jsonl", map_labels=("x",))
    assert [(problem.key, problem.line) for problem in caught.value.problems] == [
        ("--map-label", None),
        ("--data", None),
    ]
    assert "command line  --data" in str(caught.value)
    with pytest.raises(SpecError, match=r"command line +--split +missing; expected the split of `hub:`"):
        source("hub:some/data")
    with pytest.raises(SpecError, match=r"--split +'test'; expected none: a `file:` has no splits"):
        source("file:a.csv", split="test")


def test_where_a_file_can_be_written_is_looked_at_first(tmp_path: Path) -> None:
    file_to_write("--out", tmp_path / "a.json", command="bench")
    (tmp_path / "there.json").touch()
    file_to_write("--out", tmp_path / "there.json", command="bench")
    for path, new, told in (
        (tmp_path, False, "is a folder"),
        (Path(), False, "is a folder"),
        (tmp_path / "no" / "a.json", False, "no such folder"),
        (tmp_path / "there.json", True, "exists"),
        (Path("/proc/self/a.json"), False, "can't be written"),
    ):
        with pytest.raises(SpecError, match=told):
            file_to_write("--out", path, command="bench", new=new)


def test_a_target_s_size_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)))
    found = limits_like("raspberry-pi-4", Limits())
    assert (found.cores, found.like) == ((0, 1, 2, 3), "raspberry-pi-4")
    fewer = limits_like("raspberry-pi-4", Limits(cores=(6, 7)))
    assert (fewer.cores, fewer.like) == ((6, 7), "raspberry-pi-4, on 2 cores instead of 4")
    with pytest.raises(SpecError, match="is a target for cuda"):
        limits_like("cuda", Limits())


@pytest.mark.parametrize(("cores", "memory"), [("", None), ("1,,2", None), (None, "0"), ("2-1", None)])
def test_limits_that_are_none(cores: str | None, memory: str | None) -> None:
    with pytest.raises(SpecError):
        limits_given(cores, memory)
