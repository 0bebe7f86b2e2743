"""The stages that `edgeicl plan` lists for a target, by the first that isn't stored."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from edgeicl import forecast
from edgeicl.stored import NotStoredError


@pytest.mark.parametrize(
    ("missing", "states"),
    [
        ("importance", ["to be built", "after that", "after that"]),
        ("cache_scales", ["in the store", "to be built", "after that"]),
        ("quantize", ["in the store", "to be built", "after that"]),
    ],
)
def test_the_first_that_is_missing(missing: str, states: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Scales of the cache are a stage of the store, and part of the plan to people."""

    def quantized(*_: object) -> None:
        raise NotStoredError(missing)

    monkeypatch.setattr(forecast, "quantized", quantized)
    job: Any = SimpleNamespace(recipe=SimpleNamespace(quantize=SimpleNamespace(recover=None)))
    nothing: Any = object()
    seconds = {"benchmark": 1.0, "report": 1.0}
    found = forecast._stages(job, nothing, nothing, nothing, seconds, exported=False)
    assert [(entry.stage, entry.state) for entry in found[:3]] == list(
        zip(("importance", "quantize", "emit"), states, strict=True)
    )
