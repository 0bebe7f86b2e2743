"""Times graphs in a process of its own: JSON in on stdin, JSON out, with numpy and onnxruntime alone.

Request: threads, and graphs: each a model, inputs (name -> width of the last axis), and tokens (a list). All
graphs of a request are timed in turn, and the least time counts: others that use the machine only add to it.
Without graphs, what is measured is how fast memory is read; without threads, too, the device says what it is.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort

try:
    from edgeicl.bench.bandwidth import last_level_cache_bytes, memory_buffer_bytes, read_bandwidth
    from edgeicl.bench.device_facts import device_facts
except ImportError:  # On a device the files lie side by side.
    from bandwidth import (  # type: ignore[import-not-found, no-redef]
        last_level_cache_bytes,
        memory_buffer_bytes,
        read_bandwidth,
    )
    from device_facts import device_facts  # type: ignore[import-not-found, no-redef]


def times_ms(runs: list[Callable[[], object]], *, seconds: float, rounds: int = 3) -> list[list[float]]:
    """Milliseconds of each, in turn, each as long as the others in every round, and at least once."""
    times: list[list[float]] = [[] for _ in runs]
    for run in runs:
        run()
    for _ in range(rounds):
        for run, taken in zip(runs, times, strict=True):
            ends = time.perf_counter() + seconds / (rounds * len(runs))
            started = 0.0
            while not started or time.perf_counter() < ends:
                started = time.perf_counter()
                run()
                taken.append((time.perf_counter() - started) * 1e3)
    return times


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """`ms` and `median_ms` of each graph and number of tokens; or `bandwidth`, the most bytes per second."""
    if request["threads"] is None:
        return {"device": device_facts()}
    if not request["graphs"]:
        buffer_bytes = memory_buffer_bytes(last_level_cache_bytes())
        found = read_bandwidth(buffer_bytes=buffer_bytes, threads=request["threads"])
        return {"bandwidth": max(found.values()), "runtime_version": ort.__version__}
    options = ort.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    random = np.random.default_rng(0)
    runs: list[Callable[[], object]] = []
    for graph in request["graphs"]:
        session = ort.InferenceSession(graph["model"], options, providers=["CPUExecutionProvider"])
        for tokens in graph["tokens"]:
            values = {
                name: random.standard_normal((1, tokens, width), dtype=np.float32)
                for name, width in graph["inputs"].items()
            }
            runs.append(partial(session.run, None, values))
    times = times_ms(runs, seconds=request["seconds"])
    return {"ms": [min(each) for each in times], "median_ms": [float(np.median(each)) for each in times]}


def main() -> None:
    """Reads the request, writes the result as the last line of stdout."""
    json.dump(measure(json.load(sys.stdin)), sys.stdout)


if __name__ == "__main__":
    main()
