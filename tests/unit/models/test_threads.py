from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from edgeicl.models import threads
from edgeicl.models.threads import SMALL_PARAMETERS, fit_threads


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_small_models_compute_on_one_thread_and_others_on_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_ALL", 2)
    fit_threads(SMALL_PARAMETERS - 1)
    assert torch.get_num_threads() == 1
    fit_threads(SMALL_PARAMETERS)
    assert torch.get_num_threads() == 2
