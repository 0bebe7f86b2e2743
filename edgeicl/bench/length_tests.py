"""Prefill and decode apart, at several lengths and depths: llama-bench's pp and tg.

`pp` reads a prompt, `tg` decodes tokens one by one; `depth` positions stand in the cache before. They hold
zeros: how long attention takes depends on how many there are, not on what they are. Numpy alone: this file
runs on devices beside the runner.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

try:
    from edgeicl.bench.protocol import token_trace
except ImportError:  # On a device the files lie side by side.
    from protocol import token_trace  # type: ignore[import-not-found, no-redef]


def needed_context_tokens(tests: list[dict[str, Any]]) -> int:
    """Positions of a cache in which every test fits; tg reads one token before it is timed."""
    return max(int(test["depth"] + test["tokens"] + (test["kind"] == "tg")) for test in tests)


def time_tests(
    decoder: Any,
    tests: list[dict[str, Any]],
    *,
    vocabulary: int,
    repetitions: int,
    warmup_repetitions: int,
    pause: Callable[[], None],
) -> list[list[float]]:
    """Milliseconds [test, repetition] of each test as a whole.

    Tests take turns, so that drift hits all alike; `pause` is called before each.
    """
    times: list[list[float]] = [[] for _ in tests]
    for round_number in range(-warmup_repetitions, repetitions):
        for test, taken in zip(tests, times, strict=True):
            pause()
            found = _time_test(decoder, test, vocabulary)
            if round_number >= 0:
                taken.append(found)
    return times


def _time_test(decoder: Any, test: dict[str, Any], vocabulary: int) -> float:
    decoder.stand_at(test["depth"])
    trace = token_trace(test["tokens"] + 1, vocabulary)
    if test["kind"] == "pp":
        prompt = np.ascontiguousarray(trace[None, :-1])
        started = time.perf_counter()
        decoder.prefill(prompt)
        return (time.perf_counter() - started) * 1e3
    decoder.prefill(trace[None, :1])
    started = time.perf_counter()
    for index in range(1, len(trace)):
        decoder.decode(trace[index : index + 1])
    return (time.perf_counter() - started) * 1e3
