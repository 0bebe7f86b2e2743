"""The probe counts bytes honestly; how fast this machine is, no test can know."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from edgeicl.bench.bandwidth import last_level_cache_bytes, memory_buffer_bytes, read_bandwidth


def test_buffers_are_far_larger_than_the_cache() -> None:
    assert memory_buffer_bytes(None) == 64 << 20
    assert memory_buffer_bytes(8 << 20) == 64 << 20
    assert memory_buffer_bytes(96 << 20) == 384 << 20


def test_caches_of_all_chips_count_and_shared_ones_once(tmp_path: Path) -> None:
    """Four processors, two to a chip: 2 MiB each of level 2, 32 MiB a chip of level 3."""
    for number in range(4):
        chip = "0-1" if number < 2 else "2-3"
        for index, (level, shared, size) in enumerate([(2, str(number), "2048K"), (3, chip, "32M")]):
            cache = tmp_path / f"cpu{number}" / "cache" / f"index{index}"
            cache.mkdir(parents=True)
            for name, text in (("level", level), ("shared_cpu_list", shared), ("size", size)):
                (cache / name).write_text(f"{text}\n")
    assert last_level_cache_bytes(tmp_path) == 2 * (32 << 20)
    assert last_level_cache_bytes(tmp_path / "none") is None


@pytest.mark.alone
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
