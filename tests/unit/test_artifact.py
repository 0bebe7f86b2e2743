"""The artifact folder: old or new under the final name, never half of either."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgeicl.artifact import MANIFEST, refuse_foreign_folder, replacing, write_manifest
from edgeicl.errors import DataError
from edgeicl.store import file_sha256
from tests.unit.samples import manifest


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEICL_CACHE_DIR", str(tmp_path / "cache"))


def put(folder: Path, text: str, *, old: str | None = None, fails: bool = False) -> None:
    """Builds an artifact that holds `text`, in place of one that holds `old`."""
    with replacing(folder) as partial:
        (partial / MANIFEST).write_text(text)
        if old is not None:
            assert (folder / MANIFEST).read_text() == old
        if fails:
            raise RuntimeError("half way")


def test_a_new_artifact_takes_the_place_of_an_old_one(tmp_path: Path) -> None:
    final = tmp_path / "build" / "a"
    put(final, "old")
    (final / "stray").write_text("")
    put(final, "new")
    assert (final / MANIFEST).read_text() == "new"
    assert sorted(path.name for path in final.parent.iterdir()) == ["a"]
    assert [path.name for path in final.iterdir()] == [MANIFEST]


def test_a_failure_leaves_the_old_one(tmp_path: Path) -> None:
    final = tmp_path / "a"
    put(final, "old")
    with pytest.raises(RuntimeError, match="half way"):
        put(final, "new", old="old", fails=True)
    assert (final / MANIFEST).read_text() == "old"
    put(final, "third")  # what the failed one left is cleared away
    assert not (tmp_path / "a.partial").exists()


def test_killed_between_the_renames_the_old_one_comes_back(tmp_path: Path) -> None:
    final = tmp_path / "a"
    put(final, "old")
    final.rename(tmp_path / "a.previous")
    with pytest.raises(RuntimeError, match="half way"):
        put(final, "new", old="old", fails=True)
    assert (final / MANIFEST).read_text() == "old"


def test_other_peoples_folders_are_not_replaced(tmp_path: Path) -> None:
    foreign = tmp_path / "mine"
    foreign.mkdir()
    refuse_foreign_folder(foreign)  # an empty folder may be taken
    refuse_foreign_folder(tmp_path / "absent")
    (foreign / "thesis.tex").write_text("")
    with pytest.raises(DataError, match="will not be replaced"):
        refuse_foreign_folder(foreign)
    with pytest.raises(DataError, match="is no artifact"):
        put(foreign, "new")
    assert (foreign / "thesis.tex").exists()


def test_the_manifest_lists_every_other_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x").write_bytes(b"")
    write_manifest(tmp_path, manifest())
    written = write_manifest(tmp_path, manifest())  # its own hash never enters
    assert set(written.files) == {"model.onnx", "sub/x"}
    assert written.files["model.onnx"] == file_sha256(tmp_path / "model.onnx")
    assert json.loads((tmp_path / MANIFEST).read_text())["files"] == written.files
