"""Measures one artifact in a process of its own: JSON in (a file, or stdin), JSON out.

Needs numpy and onnxruntime, and the files of `devices/programs.py` beside it: the same files run here, over ssh
and over adb. It imports nothing else, so that the peak memory is the artifact's.

Every request has model, engine (fused | growing | cuda:NUMBER), prefix (null, or the file whose first set
stands before the prompt), threads, vocabulary, prompt_tokens, decode_tokens, repetitions, warmup_repetitions,
least_s, cool_down_s, and an action. One that follows another run has start_c, the temperature before that one
(null: not known), and cools down before anything else:

- measure (where none is given): load, warm up, repeat, for least_s seconds at least; bytes_per_token asks for
  the memory's bandwidth (null: none), `cold: true` has the artifact's pages dropped from the file cache before
  it is loaded.
- load: load alone.
- tests: times of `tests`, each a kind (pp | tg), tokens and depth; without the prefix.
- sustain: repetitions without pause for `seconds`, in windows of `window_s`.

Every answer has the effective settings, what the device says of itself, and its state before and after.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime as ort

try:
    from edgeicl.bench.bandwidth import last_level_cache_bytes, memory_buffer_bytes, read_bandwidth
    from edgeicl.bench.device_facts import device_facts, device_state, hottest_c, processor, usable_cores
    from edgeicl.bench.length_tests import needed_context_tokens, time_tests
    from edgeicl.bench.protocol import peak_rss_bytes, time_repetition, token_trace, turns
    from edgeicl.bench.sustained import sustain
    from edgeicl.models.device_decoder import DeviceDecoder
    from edgeicl.models.growing_decoder import GrowingDecoder
    from edgeicl.models.onnx_decoder import OnnxDecoder
    from edgeicl.models.prefix_file import prefix_tokens, read_prefix
except ImportError:  # On a device the files lie side by side.
    from bandwidth import (  # type: ignore[import-not-found, no-redef]
        last_level_cache_bytes,
        memory_buffer_bytes,
        read_bandwidth,
    )
    from device_decoder import DeviceDecoder  # type: ignore[import-not-found, no-redef]
    from device_facts import (  # type: ignore[import-not-found, no-redef]
        device_facts,
        device_state,
        hottest_c,
        processor,
        usable_cores,
    )
    from growing_decoder import GrowingDecoder  # type: ignore[import-not-found, no-redef]
    from length_tests import needed_context_tokens, time_tests  # type: ignore[import-not-found, no-redef]
    from onnx_decoder import OnnxDecoder  # type: ignore[import-not-found, no-redef]
    from prefix_file import prefix_tokens, read_prefix  # type: ignore[import-not-found, no-redef]
    from protocol import (  # type: ignore[import-not-found, no-redef]
        peak_rss_bytes,
        time_repetition,
        token_trace,
        turns,
    )
    from sustained import sustain  # type: ignore[import-not-found, no-redef]

ENGINES: dict[str, Any] = {"fused": OnnxDecoder, "growing": GrowingDecoder}
_COOL_ENOUGH_C = 2.0  # above the temperature at the start
_COOL_DOWN_STEP_S = 1.0


def engine(name: str) -> Any:
    """What makes a decoder of a graph; `cuda:0` holds it on that GPU."""
    return partial(DeviceDecoder, device=name) if name.startswith("cuda:") else ENGINES[name]


def thread_count() -> int | None:
    """Threads of this process, where Linux shows them."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else None


class Run:
    """One request: the loaded artifact, and what was noticed around it."""

    def __init__(self, request: dict[str, Any], *, behind_prefix: bool = True) -> None:
        self.request = request
        self.cooled_s = 0.0
        self._start_c = request["start_c"] if "start_c" in request else hottest_c()
        if "start_c" in request:
            self.cool_down()
        self.before = device_state()
        self.baseline_rss_bytes = peak_rss_bytes()
        threads_before = thread_count()
        self.pages_dropped = drop_pages(Path(request["model"])) if request.get("cold") else None
        started = time.perf_counter()
        named = request["prefix"] if behind_prefix else None
        prefix = read_prefix(Path(named))[0][0] if named else None
        self.prefix_tokens = prefix_tokens(prefix)
        context_tokens = self.prefix_tokens + request["prompt_tokens"] + request["decode_tokens"]
        if request.get("tests"):
            context_tokens = needed_context_tokens(request["tests"])
        self.decoder = engine(request["engine"])(
            Path(request["model"]), threads=request["threads"], context_tokens=context_tokens
        )
        if prefix is not None:
            self.decoder.load_prefix(prefix)
        self.load_ms = (time.perf_counter() - started) * 1e3
        # A GPU's driver has threads of its own.
        self._threads_before = None if request["engine"].startswith("cuda:") else threads_before

    def repetition(self) -> tuple[float, list[float]]:
        """Milliseconds of the prompt, and of each token after it."""
        prompt_tokens = self.request["prompt_tokens"]
        trace = token_trace(prompt_tokens + self.request["decode_tokens"], self.request["vocabulary"])
        return time_repetition(self.decoder, trace, prompt_tokens)

    def cool_down(self) -> None:
        """Waits until it is about as cool as at the start, at most `cool_down_s`; so long without a sensor."""
        longest, started = self.request.get("cool_down_s") or 0.0, time.perf_counter()
        while longest and (waited := time.perf_counter() - started) < longest:
            now = hottest_c()
            if now is not None and self._start_c is not None and now <= self._start_c + _COOL_ENOUGH_C:
                break
            time.sleep(min(_COOL_DOWN_STEP_S, longest - waited))
        self.cooled_s += time.perf_counter() - started

    def settings(self) -> dict[str, Any]:
        """What every answer has, read back at the end."""
        threads_after = thread_count()
        before = self._threads_before
        return {
            "load_ms": self.load_ms,
            "pages_dropped": self.pages_dropped,
            "threads": self.decoder.threads,
            "prefix_tokens": self.prefix_tokens,
            # The calling thread works too: a pool of N threads starts N - 1.
            "pool_threads": threads_after - before + 1 if before and threads_after else None,
            "providers": list(self.decoder.providers),
            "told": list(getattr(self.decoder, "told", ())),
            "runtime": "onnxruntime",
            "runtime_version": ort.__version__,
            "machine": f"{platform.system()} {platform.machine()}",
            "processor": processor(),
            "logical_cores": usable_cores(),
            "device": device_facts(),
            "cooled_s": self.cooled_s,
            "start_c": self._start_c,
            "states": [{"when": "before", **self.before}, {"when": "after", **device_state()}],
        }


def drop_pages(model: Path) -> bool:
    """Asks the system to forget the file's pages, and its weights'; False where it takes no such advice."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in (model, model.with_name(f"{model.name}.data")):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)  # pages that are not on disk yet would stay
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            except OSError:
                return False
            finally:
                os.close(descriptor)
    return True


def measure(request: dict[str, Any]) -> dict[str, Any]:
    """All of one run: load, warm-up, repetitions, memory, then the bandwidth of this machine."""
    run = Run(request)
    for _ in range(request["warmup_repetitions"]):
        run.repetition()
    samples, between = [], []
    for number in turns(request["repetitions"], request["least_s"]):
        if number:
            run.cool_down()
        samples.append(run.repetition())
        between.append(device_state())
    peak = peak_rss_bytes()
    settings = run.settings()
    settings["states"][1:1] = [
        {"when": f"after repetition {n + 1}", **state} for n, state in enumerate(between)
    ]
    return {
        "first_token_ms": [first for first, _ in samples],
        "decode_ms": [steps for _, steps in samples],
        "baseline_rss_bytes": run.baseline_rss_bytes,
        "peak_rss_bytes": peak,
        **settings,
        "bandwidth": measure_bandwidth(request["bytes_per_token"], request["threads"]),
    }


def load(request: dict[str, Any]) -> dict[str, Any]:
    """Loading alone."""
    return Run(request).settings()


def tests(request: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of each test and repetition."""
    run = Run(request, behind_prefix=False)
    times = time_tests(
        run.decoder,
        request["tests"],
        vocabulary=request["vocabulary"],
        repetitions=request["repetitions"],
        warmup_repetitions=request["warmup_repetitions"],
        pause=run.cool_down,
    )
    return {"test_ms": times, **run.settings()}


def sustained(request: dict[str, Any]) -> dict[str, Any]:
    """Windows of a load without pause."""
    run = Run(request)
    for _ in range(request["warmup_repetitions"]):
        run.repetition()
    windows = sustain(run.repetition, seconds=request["seconds"], window_s=request["window_s"])
    return {"windows": windows, **run.settings()}


def measure_bandwidth(bytes_per_token: int | None, threads: int) -> dict[str, Any] | None:
    """Bytes per second by probe: `memory` from beyond all caches, `token` over what one token reads."""
    if bytes_per_token is None:
        return None
    buffer_bytes = memory_buffer_bytes(last_level_cache_bytes())
    return {
        "memory": read_bandwidth(buffer_bytes=buffer_bytes, threads=threads),
        "token": read_bandwidth(buffer_bytes=bytes_per_token, threads=threads),
    }


ACTIONS = {"measure": measure, "load": load, "tests": tests, "sustain": sustained}


def main() -> None:
    """Reads the request, writes the result as the last line of stdout."""
    text = Path(sys.argv[1]).read_text() if len(sys.argv) > 1 else sys.stdin.read()
    request = json.loads(text)
    sys.stdout.write(json.dumps(ACTIONS[request.get("action", "measure")](request)) + "\n")


if __name__ == "__main__":
    main()
