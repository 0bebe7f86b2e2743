"""The protocol of every measurement, whatever engine runs: which tokens, what is timed, which memory counts.

Numpy alone: this file runs on devices beside the runner, and in the environments of rivals.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


class Decoder(Protocol):
    """What the measurement needs of an engine."""

    def prefill(self, input_ids: Ids) -> Any: ...

    def decode(self, token_ids: Ids) -> Any: ...

    def reset(self) -> None: ...


def token_trace(count: int, vocabulary: int) -> Ids:
    """The same `count` tokens every time, all over the vocabulary but for the special ones at its start."""
    first = min(4, vocabulary - 1)
    return first + (np.arange(1, count + 1, dtype=np.int64) * 2654435761) % 2**32 % (vocabulary - first)


def time_repetition(decoder: Decoder, trace: Ids, prompt_tokens: int) -> tuple[float, list[float]]:
    """Milliseconds of the prefill of the first `prompt_tokens`, and of each later token's decode step."""
    decoder.reset()
    prompt = trace[None, :prompt_tokens]
    started = time.perf_counter()
    decoder.prefill(prompt)
    ended = time.perf_counter()
    first_token_ms = (ended - started) * 1e3
    steps_ms = []
    for index in range(prompt_tokens, len(trace)):
        token = trace[index : index + 1]
        started = time.perf_counter()
        decoder.decode(token)
        steps_ms.append((time.perf_counter() - started) * 1e3)
    return first_token_ms, steps_ms


def turns(repetitions: int, least_s: float) -> Iterator[int]:
    """Numbers of repetitions from 0: so many, and on until `least_s` seconds have gone by."""
    started, number = time.perf_counter(), 0
    while number < repetitions or time.perf_counter() - started < least_s:
        yield number
        number += 1


def peak_rss_bytes() -> int | None:
    """Most memory this process ever held; None where the system doesn't say."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
