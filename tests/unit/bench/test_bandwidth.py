"""The probe counts bytes honestly; how fast this machine is, no test can know."""

from __future__ import annotations

import time

import numpy as np

from edgeicl.bench.bandwidth import memory_buffer_bytes, read_bandwidth


def test_buffers_are_far_larger_than_the_cache() -> None:
    assert memory_buffer_bytes(None) == 64 << 20
    assert memory_buffer_bytes(8 << 20) == 64 << 20
    assert memory_buffer_bytes(96 << 20) == 384 << 20


def test_probes_agree_with_one_timed_by_hand() -> None:
    """An independent timing of one pass over the same bytes; a factor of 8 allows for a busy machine."""
    count = 16 << 20
    found = read_bandwidth(buffer_bytes=count, threads=1, repetitions=3)
    assert set(found) == {"bitwise_or", "maximum", "add", "copy"}
    words = np.full(count // 8, 1, dtype=np.uint64)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        np.bitwise_or.reduce(words)
        seconds.append(time.perf_counter() - started)
    by_hand = count / min(seconds)
    assert by_hand / 8 < found["bitwise_or"] < by_hand * 8


def test_a_buffer_of_a_few_bytes_is_no_error() -> None:
    assert all(value > 0 for value in read_bandwidth(buffer_bytes=1, threads=2, repetitions=1).values())
