"""An engine of a few lines that speaks the rivals' protocol; its settings say what goes wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeicl.bench.protocol import Ids
from edgeicl.bench.rivals.rival import Logits, Rival, RivalEnvironment, SteppedEngine

IMPORTS = ("json",)
HERE = RivalEnvironment("fake", ("numpy",), "it is made up")
VOCABULARY = 40


def fake(name: str, *, environment: RivalEnvironment = HERE, **settings: Any) -> Rival:
    """A rival of this file. Settings: fails_at (build | measure), shift (of the logits), threads."""
    return Rival(name, f"made up: {name}", environment, __name__, logit_tolerance=0.1, settings=settings)


def build(checkpoint: Path, folder: Path, settings: Mapping[str, Any], context_tokens: int) -> None:
    if settings.get("fails_at") == "build":
        raise SystemExit("this model has a shape that I don't know")
    assert (checkpoint / "config.json").is_file()
    (folder / "model.bin").write_bytes(b"12345")
    (folder / "config.json").write_text("{}")


def load(folder: Path, settings: Mapping[str, Any], threads: int, context_tokens: int) -> SteppedEngine:
    assert (folder / "model.bin").read_bytes() == b"12345"
    return Summing(settings, settings.get("threads", threads))


class Summing(SteppedEngine):
    """Logits are a wave whose phase is the sum of what was read, so that a lost token shows."""

    def __init__(self, settings: Mapping[str, Any], threads: int) -> None:
        self.threads, self._settings = threads, settings
        self.reset()

    def reset(self) -> None:
        self._sum = 0

    def repetition(self, trace: Ids, prompt_tokens: int) -> tuple[float, list[float]]:
        if self._settings.get("fails_at") == "measure":
            raise SystemExit("I fell over in the middle")
        return super().repetition(trace, prompt_tokens)

    def read(self, ids: Ids) -> Logits:
        self._sum += int(ids.sum())
        phase = self._sum + self._settings.get("shift", 0.0)
        return np.cos(np.arange(VOCABULARY) + phase)[None].astype(np.float32)
