"""A rival in a process of its own: a request in JSON on stdin, the answer as the last line of stdout.

Runs in the rival's Python, so it imports numpy, the protocol and the one module that is asked for.

Request: action (build | logits | measure), module, settings, folder (what was built, or is to be), threads,
context_tokens; build: checkpoint; logits: ids, prompt_tokens, output (a .npy file); measure: prompt_tokens,
decode_tokens, repetitions, warmup_repetitions, least_s, vocabulary.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from edgeicl.bench.protocol import peak_rss_bytes, token_trace, turns


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What the request asks for."""
    module = importlib.import_module(request["module"])
    folder, settings = Path(request["folder"]), request["settings"]
    if request["action"] == "build":
        module.build(Path(request["checkpoint"]), folder, settings, request["context_tokens"])
        return {}
    for name in module.IMPORTS:
        importlib.import_module(name)
    baseline_rss_bytes = peak_rss_bytes()
    started = time.perf_counter()
    engine = module.load(folder, settings, request["threads"], request["context_tokens"])
    load_ms = (time.perf_counter() - started) * 1e3
    if request["action"] == "logits":
        ids = np.array(request["ids"], dtype=np.int64)
        logits = engine.last_logits(ids, request["prompt_tokens"])
        np.save(request["output"], np.asarray(logits, dtype=np.float32))
        return {}
    prompt_tokens = request["prompt_tokens"]
    trace = token_trace(prompt_tokens + request["decode_tokens"], request["vocabulary"])
    for _ in range(request["warmup_repetitions"]):
        engine.repetition(trace, prompt_tokens)
    samples = [
        engine.repetition(trace, prompt_tokens) for _ in turns(request["repetitions"], request["least_s"])
    ]
    return {
        "load_ms": load_ms,
        "first_token_ms": [first for first, _ in samples],
        "decode_ms": [steps for _, steps in samples],
        "threads": engine.threads,
        "baseline_rss_bytes": baseline_rss_bytes,
        "peak_rss_bytes": peak_rss_bytes(),
    }


def main() -> None:
    """Reads the request, writes the answer."""
    text = json.dumps(answer(json.loads(sys.stdin.read())))
    sys.stdout.write(f"\n{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
