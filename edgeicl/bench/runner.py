"""Measures one artifact in a process of its own: JSON in (a file, or stdin), JSON out.

Needs numpy and onnxruntime, and beside it `onnx_decoder.py`, `prefix_file.py`, `growing_decoder.py`,
`protocol.py` and `bandwidth.py`: the same files run here, over ssh and over adb. It imports nothing else, so
that the peak memory is the artifact's.

Request: model, engine (fused | growing), prefix (null, or the file whose first set stands before the prompt),
threads, prompt_tokens, decode_tokens, repetitions, warmup_repetitions, vocabulary, and bytes_per_token (null:
no bandwidth is measured).
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import onnxruntime as ort

try:
    from edgeicl.bench.bandwidth import last_level_cache_bytes, memory_buffer_bytes, read_bandwidth
    from edgeicl.bench.protocol import peak_rss_bytes, time_repetition, token_trace
    from edgeicl.models.growing_decoder import GrowingDecoder
    from edgeicl.models.onnx_decoder import OnnxDecoder
    from edgeicl.models.prefix_file import prefix_tokens, read_prefix
except ImportError:  # On a device the files lie side by side.
    from bandwidth import (  # type: ignore[import-not-found, no-redef]
        last_level_cache_bytes,
        memory_buffer_bytes,
        read_bandwidth,
    )
    from growing_decoder import GrowingDecoder  # type: ignore[import-not-found, no-redef]
    from onnx_decoder import OnnxDecoder  # type: ignore[import-not-found, no-redef]
    from prefix_file import prefix_tokens, read_prefix  # type: ignore[import-not-found, no-redef]
    from protocol import (  # type: ignore[import-not-found, no-redef]
        peak_rss_bytes,
        time_repetition,
        token_trace,
    )


def thread_count() -> int | None:
    """Threads of this process, where Linux shows them."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else None


def processor() -> str:
    """What the processor calls itself."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    for key in ("model name", "Model", "Hardware"):
        for line in lines:
            if line.split(":")[0].strip() == key:
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """All of one run: load, warm-up, repetitions, memory, then the bandwidth of this machine."""
    prompt_tokens, decode_tokens = request["prompt_tokens"], request["decode_tokens"]
    threads = request["threads"]
    baseline_rss_bytes = peak_rss_bytes()
    threads_before = thread_count()
    engines: dict[str, Any] = {"fused": OnnxDecoder, "growing": GrowingDecoder}
    engine = engines[request["engine"]]
    started = time.perf_counter()
    prefix = read_prefix(Path(request["prefix"]))[0][0] if request["prefix"] else None
    context_tokens = prefix_tokens(prefix) + prompt_tokens + decode_tokens
    decoder = engine(Path(request["model"]), threads=threads, context_tokens=context_tokens)
    if prefix is not None:
        decoder.load_prefix(prefix)
    load_ms = (time.perf_counter() - started) * 1e3
    trace = token_trace(prompt_tokens + decode_tokens, request["vocabulary"])
    warmup = [time_repetition(decoder, trace, prompt_tokens) for _ in range(request["warmup_repetitions"])]
    samples = [time_repetition(decoder, trace, prompt_tokens) for _ in range(request["repetitions"])]
    threads_after = thread_count()
    peak = peak_rss_bytes()
    return {
        "load_ms": load_ms,
        "warmup_first_token_ms": [first for first, _ in warmup],
        "first_token_ms": [first for first, _ in samples],
        "decode_ms": [steps for _, steps in samples],
        "baseline_rss_bytes": baseline_rss_bytes,
        "peak_rss_bytes": peak,
        "threads": decoder.threads,
        "prefix_tokens": prefix_tokens(prefix),
        # The calling thread works too: a pool of N threads starts N - 1.
        "pool_threads": threads_after - threads_before + 1 if threads_before and threads_after else None,
        "providers": list(decoder.providers),
        "runtime": "onnxruntime",
        "runtime_version": ort.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "logical_cores": usable_cores(),
        "bandwidth": measure_bandwidth(request["bytes_per_token"], threads),
    }


def measure_bandwidth(bytes_per_token: int | None, threads: int) -> dict[str, Any] | None:
    """Bytes per second by probe: `memory` from beyond all caches, `token` over what one token reads."""
    if bytes_per_token is None:
        return None
    cache_bytes = last_level_cache_bytes()
    return {
        "cache_bytes": cache_bytes,
        "memory": read_bandwidth(buffer_bytes=memory_buffer_bytes(cache_bytes), threads=threads),
        "token": read_bandwidth(buffer_bytes=bytes_per_token, threads=threads),
    }


def main() -> None:
    """Reads the request, writes the result as the last line of stdout."""
    text = Path(sys.argv[1]).read_text() if len(sys.argv) > 1 else sys.stdin.read()
    sys.stdout.write(json.dumps(measure(json.loads(text))) + "\n")


if __name__ == "__main__":
    main()
