"""Predictions: kept for a run that comes after a kill, and put in rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from transformers import OPTForCausalLM

from edgeicl.distill.accuracy_table import accuracy_rows
from edgeicl.distill.baselines import fine_tuned_predictions
from edgeicl.distill.evaluate import FINE_TUNING
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.predictions import ONLY, Predictor
from edgeicl.store import ALONE
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder
from tests.unit.byte_tokenizer import byte_tokenizer
from tests.unit.distill.test_trainer import settings

SETTINGS = settings()


def test_predictions_are_made_once_and_anew_when_they_can_not_be_read(
    opt: Callable[..., OPTForCausalLM], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = PromptEncoder(
        byte_tokenizer(), pattern="{text}", verbalizers={"yes": " Yes", "no": " No"}, separator="\n"
    )
    examples = [Example({"text": text}, label) for text, label in zip("abc", ("yes", "no", "no"), strict=True)]
    calls = 0

    def load() -> LabelReader:
        nonlocal calls
        calls += 1
        return LabelReader(opt(seed=0))

    def found() -> list[int]:
        predictions = fine_tuned_predictions(
            load,
            Predictor(encoder, {"in_domain": examples}),
            {"seed_0": examples[:2]},
            settings=SETTINGS,
            seed=0,
            kept=tmp_path,
            workers=ALONE,
        )
        return list(predictions[f"{FINE_TUNING}/in_domain/seed_0"])

    first = found()
    assert found() == first
    assert calls == 1
    (path,) = tmp_path.glob("tuned *.safetensors")
    path.write_bytes(path.read_bytes()[:-4])
    assert found() == first
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
