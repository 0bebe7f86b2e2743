"""Predictions: kept for a run that comes after a kill, and put in rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeicl.distill.predictions import ONLY, Predictions, accuracy_rows, remembered
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder
from tests.unit.byte_tokenizer import byte_tokenizer


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
    assert f"{path} is not the file that was written" in caplog.text


def test_values_stand_in_the_order_of_the_recipes_seeds() -> None:
    """Seed 10 comes after seed 2, though not as text."""
    encoder = PromptEncoder(
        byte_tokenizer(), pattern="{text}", verbalizers={"yes": " Yes", "no": " No"}, separator="\n"
    )
    examples = [Example({"text": "a"}, "yes"), Example({"text": "b"}, "no")]
    predictions = {
        "tuned/in_domain/seed_10": np.array([0, 0]),
        "tuned/in_domain/seed_2": np.array([0, 1]),
        "tuned/in_domain/seed_1": np.array([1, 0]),
        "plain/in_domain/only": np.array([1, 1]),
    }
    plain, tuned = accuracy_rows(
        ["absent", "plain", "tuned"],
        predictions,
        {"in_domain": examples},
        encoder,
        runs=[ONLY, "seed_2", "seed_10", "seed_1"],
    )
    assert tuned.accuracy.values == (1.0, 0.5, 0.0)
    assert (plain.method, plain.accuracy.values) == ("plain", (0.5,))
