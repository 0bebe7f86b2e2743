from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from edgeicl.models import threads
from edgeicl.models.threads import SMALL_PARAMETERS, fit_threads
from edgeicl.quantize.student_weights import read_weights
from tests.unit.tiny_models import make_model


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_student_read_from_the_store_has_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it was trained in the same process or not: else a plan could depend on that."""
    monkeypatch.setattr(threads, "_ALL", 2)
    make_model(tmp_path, "opt")
    torch.set_num_threads(2)
    read_weights(tmp_path)
    assert torch.get_num_threads() == 1


def test_small_models_compute_on_one_thread_and_others_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_ALL", 2)
    fit_threads(SMALL_PARAMETERS - 1)
    assert torch.get_num_threads() == 1
    fit_threads(SMALL_PARAMETERS)
    assert torch.get_num_threads() == 2
