"""Time of passes: every architecture can be timed without its weights, and more work takes longer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgeicl.models import pass_time
from edgeicl.models.pass_time import Passes, pass_seconds
from tests.unit.tiny_models import VARIANTS, make_model


@pytest.fixture(autouse=True)
def _nothing_timed_yet() -> None:
    pass_time._token_seconds.cache_clear()


@pytest.mark.parametrize("variant", ["gpt2", "llama", "opt-350m", "qwen2", "qwen3"])
def test_every_architecture_can_be_timed(tmp_path: Path, variant: str) -> None:
    folder = make_model(tmp_path, variant)
    for passes in (
        Passes(folder, 1000),
        Passes(folder, 1000, trains=True),
        Passes(folder, 10, one_by_one=True),
        Passes(folder, 1000, load_in="bf16"),
    ):
        assert pass_seconds(passes) > 0


def test_layers_count_as_often_as_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One layer 3 s and two 5 s: 2 s a layer and 1 s beside; 8 rows of 32 tokens a pass."""
    folder = make_model(tmp_path, "opt")
    asked: list[int] = []

    def seconds(_: Callable[[], None]) -> float:
        asked.append(len(asked))
        return [3.0, 5.0][len(asked) - 1]

    monkeypatch.setattr(pass_time, "_fastest", seconds)
    assert VARIANTS["opt"]["num_hidden_layers"] == 2
    assert pass_seconds(Passes(folder, 512)) == pytest.approx(2 * 5.0)
    assert pass_seconds(Passes(folder, 256)) == pytest.approx(5.0)
    assert len(asked) == 2  # timed once


@pytest.mark.alone
def test_training_takes_longer_than_reading(tmp_path: Path) -> None:
    folder = make_model(tmp_path, "opt")
    assert pass_seconds(Passes(folder, 1000, trains=True)) > pass_seconds(Passes(folder, 1000))
