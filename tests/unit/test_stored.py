"""The cache as a whole: everything of ours is listed and cleared, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeicl.cache_lock import in_use
from edgeicl.errors import EdgeiclError
from edgeicl.store import RECORD, Store
from edgeicl.stored import NotStoredError, ReadOnlyStore, clear, stored

NAME = 24 * "a"


def write(folder: Path) -> None:
    (folder / "out.txt").write_text("12345")


def test_what_is_stored_is_listed_and_cleared_but_not_what_is_being_built(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.run("one", {}, write)
    record = json.loads((store.run("two", {}, write).path / RECORD).read_text())
    listed = {entry.stage: entry for entry in stored(tmp_path)}
    assert list(listed) == ["one", "two"]
    assert record["stage"] == "two"
    assert listed["one"].bytes > 5
    assert listed["one"].finished

    def while_building(folder: Path) -> None:
        (folder / "half").write_text("")
        assert clear(tmp_path) == (2, 1)

    store.run("three", {}, while_building)
    assert [entry.stage for entry in stored(tmp_path)] == ["three"]
    assert clear(tmp_path) == (1, 0)
    assert stored(tmp_path) == []


def test_what_stopped_runs_left_is_listed_as_unfinished_and_cleared(tmp_path: Path) -> None:
    (tmp_path / "empty" / f"{NAME}.partial").mkdir(parents=True)
    whole = Store(tmp_path).run("whole", {}, write).path
    recorded = tmp_path / "recorded" / f"{NAME}.partial"
    recorded.mkdir(parents=True)
    (recorded / RECORD).write_text((whole / RECORD).read_text())
    half_removed = Store(tmp_path).run("half", {}, write).path
    (half_removed / RECORD).unlink()
    assert {entry.stage: entry.finished for entry in stored(tmp_path)} == {
        "empty": False,
        "whole": True,
        "recorded": False,
        "half": False,
    }
    assert clear(tmp_path) == (4, 0)
    assert stored(tmp_path) == []


def test_killed_while_it_removes_clear_leaves_no_half_output_under_a_final_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Store(tmp_path).run("stage", {}, write).path

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("edgeicl.stored.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            clear(tmp_path)
    assert not output.exists()
    assert clear(tmp_path) == (1, 0)


def test_other_things_in_the_folder_of_the_cache_stay(tmp_path: Path) -> None:
    for name in ("thesis/draft.partial", "thesis/final"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / RECORD).write_text("{}")
    assert stored(tmp_path) == []
    assert clear(tmp_path) == (0, 0)
    assert (tmp_path / "thesis" / "draft.partial" / RECORD).exists()


def test_nothing_is_removed_while_a_build_uses_the_cache(tmp_path: Path) -> None:
    output = Store(tmp_path).run("stage", {}, write).path
    with in_use(tmp_path), pytest.raises(EdgeiclError, match="nothing was removed"):
        clear(tmp_path)
    assert output.exists()
    assert clear(tmp_path) == (1, 0)


def test_a_store_that_only_reads_goes_as_far_as_what_is_there(tmp_path: Path) -> None:
    output = Store(tmp_path).run("one", {"seed": 0}, write)
    before = sorted(tmp_path.rglob("*"))
    reading = ReadOnlyStore(tmp_path)
    assert reading.run("one", {"seed": 0}, write).path == output.path
    for stage, inputs in (("one", {"seed": 1}), ("two", {"seed": 0})):
        with pytest.raises(NotStoredError) as missing:
            reading.run(stage, inputs, write)
        assert missing.value.stage == stage
    assert reading.found == ["one"]
    assert sorted(tmp_path.rglob("*")) == before
    (output.path / "out.txt").write_text("damaged")
    assert not reading.holds("one", {"seed": 0})
