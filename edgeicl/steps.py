"""The numbered steps of one build, on stderr, with an estimate from the last build of the same recipe."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)


@dataclass
class Step:
    """One running step; `reused` is set by whoever finds that nothing had to be done."""

    reused: bool = False


class Steps:
    """Counts steps, says how long each took, and remembers it in the file `memory` for the next build."""

    def __init__(self, titles: list[str], *, memory: Path) -> None:
        self._titles = titles
        self._memory = memory
        self._done = 0
        self._seconds = _recall(memory)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Runs one step: `[3/7] plan bits` before it and `[3/7] plan bits ... 12.3 s` after."""
        self._done += 1
        label = f"[{self._done}/{len(self._titles)}] {title}"
        log.info("%s%s", label, self._estimate())
        started = time.monotonic()
        step = Step()
        yield step
        seconds = time.monotonic() - started
        log.info("%s ... %s", label, "unchanged, skipped" if step.reused else f"{seconds:.1f} s")
        if not step.reused:
            self._seconds[title] = seconds
            _remember(self._memory, self._seconds)

    def _estimate(self) -> str:
        left = self._titles[self._done - 1 :]
        if not all(title in self._seconds for title in left):
            return ""
        seconds = sum(self._seconds[title] for title in left)
        # At most: which of them will be skipped is not known yet.
        return f" (at most {seconds:.0f} s to the end, by the last build)"


def _recall(memory: Path) -> dict[str, float]:
    try:
        recalled = json.loads(memory.read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(recalled, dict):
        return {}
    return {str(title): float(s) for title, s in recalled.items() if isinstance(s, (int, float))}


def _remember(memory: Path, seconds: dict[str, float]) -> None:
    memory.parent.mkdir(parents=True, exist_ok=True)
    partial = memory.with_name(f"{memory.name}.{os.getpid()}")
    partial.write_text(json.dumps(seconds, indent=1) + "\n")
    partial.replace(memory)
