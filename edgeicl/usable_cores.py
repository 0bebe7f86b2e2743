"""The processor's cores that this process may run on."""

from __future__ import annotations

import os


def usable_cores() -> tuple[int, ...]:
    """Their numbers; all there are where the system doesn't bind processes to cores."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))
