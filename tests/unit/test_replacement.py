"""Output folders: old or new under the final name, never half of either, and nobody else's are touched."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from edgeicl.errors import DataError
from edgeicl.replacement import replaceable, replacing

MARKER = "marker.json"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEICL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


def put(folder: Path, text: str, *, old: str | None = None, fails: bool = False) -> None:
    """Puts a folder that holds `text` in place of one that holds `old`."""
    with replacing(folder, MARKER) as partial:
        (partial / MARKER).write_text(text)
        if old is not None:
            assert (folder / MARKER).read_text() == old
        if fails:
            raise RuntimeError("half way")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_new_folder_takes_the_place_of_an_old_one(tmp_path: Path) -> None:
    final = tmp_path / "build" / "a"
    put(final, "old")
    (final / "stray").write_text("")
    put(final, "new")
    assert (final / MARKER).read_text() == "new"
    assert names(final.parent) == ["a"]
    assert names(final) == [MARKER]


def test_a_failure_leaves_the_old_one_and_nothing_else(tmp_path: Path) -> None:
    final = tmp_path / "a"
    put(final, "old")
    with pytest.raises(RuntimeError, match="half way"):
        put(final, "new", old="old", fails=True)
    assert (final / MARKER).read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_what_is_to_be_kept_survives_a_failure_but_not_success(tmp_path: Path) -> None:
    final = tmp_path / "a"

    def stopped() -> None:
        with replacing(final, MARKER, keep="checkpoint") as partial:
            (partial / "checkpoint").mkdir()
            (partial / "half").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    with replacing(final, MARKER, keep="checkpoint") as partial:
        assert names(partial) == ["checkpoint"]
        (partial / MARKER).write_text("")
    assert names(final) == [MARKER]


def test_folders_with_names_like_ours_are_left_alone(tmp_path: Path) -> None:
    for name in ("a.previous", "a.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").write_text("")
    put(tmp_path / "a", "old")
    put(tmp_path / "a", "new")
    assert names(tmp_path) == ["a", "a.partial", "a.previous"]
    assert all((tmp_path / name / "thesis.tex").exists() for name in ("a.previous", "a.partial"))


def test_killed_between_the_renames_the_old_one_comes_back(tmp_path: Path) -> None:
    final, previous = tmp_path / "a", tmp_path / ".a.edgeicl-previous"
    put(final, "old")
    final.rename(previous)
    with pytest.raises(RuntimeError, match="half way"):
        put(final, "new", old="old", fails=True)
    assert (final / MARKER).read_text() == "old"
    final.rename(previous)
    final.mkdir()  # somebody made an empty one meanwhile
    with pytest.raises(RuntimeError, match="half way"):
        put(final, "new", old="old", fails=True)
    assert names(tmp_path) == ["a"]


def _put_again_and_again(folder: str) -> None:
    for number in range(100_000):
        put(Path(folder), str(number))


def test_killed_at_any_moment_the_next_run_finds_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    final = tmp_path / "a"
    put(final, "0")
    context = multiprocessing.get_context("fork")
    for moment in range(30):
        run = context.Process(target=_put_again_and_again, args=(str(final),))
        run.start()
        time.sleep(0.02 + moment / 1000)
        assert run.pid is not None
        os.kill(run.pid, signal.SIGKILL)
        run.join(timeout=30)
        with pytest.raises(RuntimeError, match="half way"):
            put(final, "failed", fails=True)
        assert (final / MARKER).read_text().isdigit()
        assert names(tmp_path) == ["a"]


def _put_slowly(folder: str, text: str) -> None:
    os.environ["EDGEICL_CACHE_DIR"] = str(Path(folder).with_name(f"cache of {text}"))
    with replacing(Path(folder), MARKER) as partial:
        (partial / MARKER).write_text(text)
        time.sleep(0.2)
        (partial / "second").write_text(text)


def test_two_runs_with_one_output_and_two_caches_leave_the_folder_of_one_of_them(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    runs = [context.Process(target=_put_slowly, args=(str(tmp_path / "a"), text)) for text in ("x", "y")]
    for run in runs:
        run.start()
    for run in runs:
        run.join(timeout=30)
    assert [run.exitcode for run in runs] == [0, 0]
    assert (tmp_path / "a" / MARKER).read_text() == (tmp_path / "a" / "second").read_text()
    assert names(tmp_path) == ["a"]


def test_other_peoples_folders_are_not_replaced(tmp_path: Path) -> None:
    foreign = tmp_path / "mine"
    foreign.mkdir()
    replaceable(foreign, MARKER)  # an empty folder may be taken
    replaceable(tmp_path / "absent", MARKER)
    (foreign / "thesis.tex").write_text("")
    with pytest.raises(DataError, match="will not be replaced"):
        put(foreign, "new")
    assert names(tmp_path) == ["mine"]
    with pytest.raises(DataError, match="will not be replaced"):
        put(foreign / "thesis.tex", "new")


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    put(tmp_path / "real" / "a", "old")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "real" / "a")
    for text in ("new", "newer"):
        put(link, text)
        assert (tmp_path / "real" / "a" / MARKER).read_text() == text
    assert link.is_symlink()
    assert names(tmp_path) == ["link", "real"]
    assert names(tmp_path / "real") == ["a"]


def test_bad_places_are_told_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "here" / "artifact", "old")
    monkeypatch.chdir(tmp_path / "here" / "artifact")
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    bad = {
        ".": "is the current folder or holds it",
        "": "is the current folder or holds it",
        "..": "is the current folder or holds it",
        "../../file/a/b": "file is a file; expected a folder",
        "../../loop/a": "can't be used",
        "../../" + 300 * "x": "can't be used",
        "../../" + 240 * "x": "can't be used",
    }
    before = sorted(tmp_path.rglob("*"))
    for place, told in bad.items():
        with pytest.raises(DataError, match=told) as caught:
            replaceable(Path(place), MARKER)
        assert "-o" in caught.value.next_step
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_without_write_permission_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write everywhere, so what the system says is put in its mouth."""
    monkeypatch.setattr(os, "access", lambda _, mode: mode == os.F_OK)
    with pytest.raises(DataError, match="a folder without write permission"):
        replaceable(tmp_path / "a", MARKER)
