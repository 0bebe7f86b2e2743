"""The store: nothing is built twice, nothing half-built is used, damage is found."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from edgeicl.errors import IntegrityError
from edgeicl.store import RECORD, Store, cache_root, digest_of, verify_stage
from edgeicl.stored import stored


class Builder:
    """Writes `text` and counts how often it was asked to."""

    def __init__(self, text: str = "made") -> None:
        self.text, self.calls = text, 0

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        (folder / "out.txt").write_text(self.text)


def test_equal_inputs_are_built_once_and_other_inputs_apart(tmp_path: Path) -> None:
    store, build = Store(tmp_path), Builder()
    first = store.run("stage", {"seed": 0}, build)
    again = Store(tmp_path).run("stage", {"seed": 0}, build)
    other = store.run("stage", {"seed": 1}, build)
    assert (first.reused, again.reused, other.reused, build.calls) == (False, True, False, 2)
    assert first.path == again.path != other.path
    assert (first.path / "out.txt").read_text() == "made"


def test_rebuild_builds_anew_but_once_in_a_run(tmp_path: Path) -> None:
    build = Builder()
    Store(tmp_path).run("stage", {}, build)
    store = Store(tmp_path, rebuild=True)
    assert not store.run("stage", {}, build).reused
    assert store.run("stage", {}, build).reused
    assert build.calls == 2


def test_the_older_output_stays_until_it_is_rebuilt(tmp_path: Path) -> None:
    output = Store(tmp_path).run("stage", {}, Builder("old"))

    def fails(folder: Path) -> None:
        assert (output.path / "out.txt").read_text() == "old"
        raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        Store(tmp_path, rebuild=True).run("stage", {}, fails)
    verify_stage(output.path)
    Store(tmp_path, rebuild=True).run("stage", {}, Builder("new"))
    assert (output.path / "out.txt").read_text() == "new"


def test_rebuild_starts_without_the_checkpoint_of_a_stopped_run(tmp_path: Path) -> None:
    def stops(folder: Path) -> None:
        (folder / "checkpoint").mkdir()
        raise KeyboardInterrupt

    def starts(folder: Path) -> None:
        assert list(folder.iterdir()) == []

    with pytest.raises(KeyboardInterrupt):
        Store(tmp_path).run("stage", {}, stops)
    Store(tmp_path, rebuild=True).run("stage", {}, starts)


def test_killed_before_it_got_its_name_an_output_is_built_without_the_left_overs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            Store(tmp_path).run("stage", {}, Builder())
    assert [entry.finished for entry in stored(tmp_path)] == [False]
    (half,) = (tmp_path / "stage").glob("*.partial")
    (half / "sub").mkdir()
    output = Store(tmp_path).run("stage", {}, Builder())
    verify_stage(output.path)
    assert {path.name for path in output.path.iterdir()} == {"out.txt", RECORD}
    assert Store(tmp_path).run("stage", {}, Builder()).reused


@pytest.mark.parametrize("damage", ["change", "remove", "add", "record"])
def test_a_damaged_output_is_found_and_built_anew(tmp_path: Path, damage: str) -> None:
    build = Builder()
    output = Store(tmp_path).run("stage", {}, build)
    verify_stage(output.path)  # negative control: sound until it is damaged
    file = output.path / "out.txt"
    if damage == "change":
        file.write_text("MADE")
    elif damage == "remove":
        file.unlink()
    elif damage == "add":
        (output.path / "stray").write_text("")
    else:
        (output.path / RECORD).write_text("[]")
    with pytest.raises(IntegrityError, match=r"changed after|no readable"):
        verify_stage(output.path)
    assert not Store(tmp_path).run("stage", {}, build).reused
    assert file.read_text() == "made"
    assert build.calls == 2


def test_a_failed_build_leaves_no_output_but_its_checkpoint(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        (folder / "checkpoint").mkdir()
        (folder / "checkpoint" / "step").write_text("7")
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        Store(tmp_path).run("stage", {}, fails)
    assert not any(entry.finished for entry in stored(tmp_path))

    def resumes(folder: Path) -> None:
        (folder / "out.txt").write_text((folder / "checkpoint" / "step").read_text())

    output = Store(tmp_path).run("stage", {}, resumes)
    assert sorted(path.name for path in output.path.iterdir()) == ["out.txt", RECORD]
    assert (output.path / "out.txt").read_text() == "7"


def _build_slowly(root: str, log: str, seconds: float) -> None:
    def build(folder: Path) -> None:
        with Path(log).open("a") as stream:
            stream.write("built\n")
        (folder / "out.txt").write_text("half")
        time.sleep(seconds)
        (folder / "out.txt").write_text("whole")

    Store(Path(root)).run("stage", {}, build)


def test_two_runs_at_once_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    runs = [context.Process(target=_build_slowly, args=(str(tmp_path / "s"), str(log), 0.3)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join(timeout=30)
    assert [run.exitcode for run in runs] == [0, 0]
    assert log.read_text() == "built\n"


def test_killed_while_building_the_next_run_builds_it_whole(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    log = tmp_path / "log"
    run = context.Process(target=_build_slowly, args=(str(tmp_path / "s"), str(log), 60.0))
    run.start()
    while not log.exists():
        time.sleep(0.01)
    assert run.pid is not None
    os.kill(run.pid, signal.SIGKILL)
    run.join(timeout=30)
    assert not any(entry.finished for entry in stored(tmp_path / "s"))
    build = Builder()
    output = Store(tmp_path / "s").run("stage", {}, build)
    assert build.calls == 1
    assert (output.path / "out.txt").read_text() == "made"


def test_digests_follow_values_not_order() -> None:
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": [1, 2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 1.5})
    assert digest_of([1, 2]) != digest_of([2, 1])


def test_the_cache_folder_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEICL_CACHE_DIR", "/named")
    assert cache_root() == Path("/named")
    monkeypatch.delenv("EDGEICL_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root() == Path("/xdg/edgeicl")
