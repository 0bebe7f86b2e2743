"""The manifest of an artifact."""

from __future__ import annotations

import json
from pathlib import Path

from edgeicl.artifact import write_manifest
from edgeicl.specs.manifest import MANIFEST
from edgeicl.store import file_sha256
from tests.unit.samples import manifest


def test_the_manifest_lists_every_other_file(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"graph")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x").write_bytes(b"")
    write_manifest(tmp_path, manifest())
    written = write_manifest(tmp_path, manifest())  # its own hash never enters
    assert set(written.files) == {"model.onnx", "sub/x"}
    assert written.files["model.onnx"] == file_sha256(tmp_path / "model.onnx")
    assert json.loads((tmp_path / MANIFEST).read_text())["files"] == written.files
