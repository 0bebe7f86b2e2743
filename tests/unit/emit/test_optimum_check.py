"""What is made of Optimum's answer, with scripts in its place; the real one is in tests/e2e."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from edgeicl.emit.optimum_check import check_optimum, optimum_versions
from edgeicl.errors import ParityError
from edgeicl.models.exporter import EXPORTER_PYTHON
from edgeicl.specs.manifest import GENAI_FILE

END = 2


def interpreter(folder: Path, monkeypatch: pytest.MonkeyPatch, *, answers: str) -> Path:
    """A python that has optimum-onnx by its own account, and runs `answers` in the place of any script."""
    versions = json.dumps({"optimum-onnx": "0.1"})
    path = folder / "python"
    path.write_text(f"#!/bin/sh\nif [ \"$1\" = -c ]; then echo '{versions}'; exit 0; fi\n{answers}\n")
    path.chmod(0o755)
    monkeypatch.setenv(EXPORTER_PYTHON, str(path))
    (folder / GENAI_FILE).write_text(json.dumps({"model": {"eos_token_id": END}}))
    return path


def test_the_same_tokens_up_to_the_end_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter(tmp_path, monkeypatch, answers=f"echo 'loaded'; echo '[[5, 6, {END}]]'")
    assert check_optimum(tmp_path, [[1]], [[5, 6, END, 9]]) == ([], True)


def test_other_tokens_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter(tmp_path, monkeypatch, answers="echo '[[5, 7]]'")
    with pytest.raises(ParityError, match=r"ORTModelForCausalLM generates \[5, 7\], onnxruntime \[5, 6\]"):
        check_optimum(tmp_path, [[1]], [[5, 6]])


def test_a_folder_that_it_can_not_run_is_a_deviation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interpreter(tmp_path, monkeypatch, answers="echo 'KeyError: made-up' >&2; exit 1")
    (deviation,), agrees = check_optimum(tmp_path, [[1]], [[5]])
    assert agrees is False
    assert deviation.why == "KeyError: made-up"


def test_where_it_is_not_installed_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    bare.chmod(0o755)
    monkeypatch.setenv(EXPORTER_PYTHON, str(bare))
    assert optimum_versions() is None
    assert check_optimum(tmp_path, [[1]], [[5]]) == ([], None)
