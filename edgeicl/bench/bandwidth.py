"""How fast this machine reads memory: the ceiling that stands beside a decode speed.

Numpy alone, since this file runs on devices beside the runner. No single loop is the fastest on every
machine, so several read each thread's own buffer at once (numpy releases the interpreter's lock in all of
them) and the fastest is the ceiling. Integers, since a float sum is bound by its additions. On a
2-core server these read 31 to 33 GB/s and an AVX-512 loop in C, at another moment, 32 to 34: a ceiling that
may be a little low.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

_MEMORY_BUFFER_BYTES = 64 << 20
_CACHE_MULTIPLE = 4
_SECONDS_PER_TIMING = 0.02
_LONG_TIMINGS = 3  # where one pass takes longer than that


def last_level_cache_bytes(processors: Path = Path("/sys/devices/system/cpu")) -> int | None:
    """All caches of the last level together that Linux reports; None where it reports none.

    Processors made of several chips have one on each, and a thread reads its share through its own.
    """
    found: dict[tuple[int, str], int] = {}
    for cache in processors.glob("cpu[0-9]*/cache/index*"):
        try:
            level, shared, size = (
                (cache / name).read_text().strip() for name in ("level", "shared_cpu_list", "size")
            )
        except OSError:
            continue
        if level.isdigit() and size[:-1].isdigit() and size[-1] in "KM":
            found[int(level), shared] = int(size[:-1]) << (10 if size[-1] == "K" else 20)
    last = max((level for level, _ in found), default=None)
    return None if last is None else sum(size for (level, _), size in found.items() if level == last)


def memory_buffer_bytes(cache_bytes: int | None) -> int:
    """Bytes that are far more than all caches hold: 64 MiB, or four times the last level if that is more."""
    return max(_MEMORY_BUFFER_BYTES, _CACHE_MULTIPLE * (cache_bytes or 0))


def read_bandwidth(*, buffer_bytes: int, threads: int, repetitions: int = 5) -> dict[str, float]:
    """Bytes per second that `threads` threads read from `buffer_bytes` in all, by probe; the best of each.

    The buffer is read over and over, in equal shares, so that what fits in a cache comes from there, as the
    weights of a small model do from token to token. `copy` reads one half of a share and writes the other.
    """
    words = max(2, buffer_bytes // threads // 8)
    buffers = [np.full(words, index + 1, dtype=np.uint64) for index in range(threads)]
    half = words // 2
    probes: dict[str, Callable[[int], object]] = {
        "bitwise_or": lambda index: np.bitwise_or.reduce(buffers[index]),
        "maximum": lambda index: np.maximum.reduce(buffers[index]),
        "add": lambda index: np.add.reduce(buffers[index]),
        "copy": lambda index: np.copyto(buffers[index][half : 2 * half], buffers[index][:half]),
    }
    with ThreadPoolExecutor(threads) as pool:
        return {
            name: words * 8 * threads / min(_seconds_per_pass(pool, threads, probe, repetitions))
            for name, probe in probes.items()
        }


def _seconds_per_pass(
    pool: ThreadPoolExecutor, threads: int, probe: Callable[[int], object], repetitions: int
) -> list[float]:
    """Time of one pass over all buffers, `repetitions` times; short passes are repeated inside the threads."""

    def timed(passes: int) -> float:
        def repeat(index: int) -> None:
            for _ in range(passes):
                probe(index)

        started = time.perf_counter()
        list(pool.map(repeat, range(threads)))
        return (time.perf_counter() - started) / passes

    first = timed(1)  # in it the pool may still start its threads
    passes = max(1, round(_SECONDS_PER_TIMING / first))
    return [timed(passes) for _ in range(max(1, repetitions if passes > 1 else _LONG_TIMINGS))]
