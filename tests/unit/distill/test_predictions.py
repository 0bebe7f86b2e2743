"""Predictions that a stopped run left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeicl.distill.predictions import Predictions, remembered


def test_predictions_are_made_once_and_anew_when_they_can_not_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "kept.safetensors"
    calls = 0

    def make() -> Predictions:
        nonlocal calls
        calls += 1
        return {"method/in_domain/only": np.arange(3)}

    for _ in range(2):
        assert remembered(path, make)["method/in_domain/only"].tolist() == [0, 1, 2]
    assert calls == 1
    path.write_bytes(path.read_bytes()[:-4])
    assert remembered(path, make)["method/in_domain/only"].tolist() == [0, 1, 2]
    assert calls == 2
    assert f"{path} can't be read" in caplog.text
