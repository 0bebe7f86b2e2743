"""A sustained load: the same repetition without pause for minutes, and how its speed and heat develop.

Standard library alone: this file runs on devices beside the runner.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

try:
    from edgeicl.bench.device_facts import device_state
except ImportError:  # On a device the files lie side by side.
    from device_facts import device_state  # type: ignore[import-not-found, no-redef]


def sustain(
    repetition: Callable[[], tuple[float, list[float]]], *, seconds: float, window_s: float
) -> list[dict[str, Any]]:
    """Windows of about `window_s`, each with its repetitions and the device's state at its end.

    None is shorter than half of that: what would be left of the time belongs to the last one.

    `repetition` gives milliseconds of the first token and of each decode step.
    """
    windows: list[dict[str, Any]] = []
    started = time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds or not windows:
        window: dict[str, Any] = {"start_s": elapsed, "first_token_ms": [], "decode_ms": []}
        left = seconds - elapsed
        ends = time.perf_counter() + (left if left < 1.5 * window_s else window_s)
        while time.perf_counter() < ends or not window["first_token_ms"]:
            first, steps = repetition()
            window["first_token_ms"].append(first)
            window["decode_ms"].append(sum(steps))
        window["end_s"] = time.perf_counter() - started
        window["state"] = device_state()
        windows.append(window)
    return windows
