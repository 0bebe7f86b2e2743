"""The numbered steps of one build, on stderr, with the time that each took."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

log = logging.getLogger(__name__)


@dataclass
class Step:
    """One running step; `reused` is set by whoever finds that nothing had to be done."""

    reused: bool = False


class Steps:
    """Counts `total` steps as they run."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Runs one step: `[3/7] plan bits` before it and `[3/7] plan bits ... 12.3 s` after."""
        self._done += 1
        label = f"[{self._done}/{self._total}] {title}"
        log.info(label)
        started = time.monotonic()
        step = Step()
        yield step
        seconds = time.monotonic() - started
        log.info("%s ... %s", label, "unchanged, skipped" if step.reused else f"{seconds:.1f} s")
