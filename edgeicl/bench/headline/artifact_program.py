"""The artifact, asked query by query in a process of its own: numpy and onnxruntime, as in an app.

Request: model, engine (fused | growing), prefix (null, or the file of what stands before queries), threads,
context_tokens, rows (token ids of each query), answers (columns of the logits of each label), warmup.
Behind several sets each query is asked once a set; its time is the sum.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from edgeicl.bench.device_facts import processor, usable_cores
from edgeicl.bench.headline.query_loop import Logits, serve, time_queries
from edgeicl.bench.protocol import Ids, peak_rss_bytes
from edgeicl.models.growing_decoder import GrowingDecoder
from edgeicl.models.onnx_decoder import OnnxDecoder
from edgeicl.models.prefix_file import read_prefix


class AskedDecoder:
    """A decoder of either engine."""

    def __init__(self, decoder: OnnxDecoder | GrowingDecoder) -> None:
        self._decoder = decoder

    def ask(self, ids: Ids) -> Logits:
        self._ids = ids
        logits: Logits = self._decoder.prefill(ids[None])[0]
        return logits

    def follow(self, token: int) -> Logits:
        logits: Logits = self._decoder.decode(np.array([token]))[0]
        return logits

    def ask_again(self) -> None:
        """The query is read anew: the cache of an artifact is not turned back."""
        self._decoder.prefill(self._ids[None])


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What the request asks for; `scores` are [S][N][L]."""
    baseline_rss_bytes = peak_rss_bytes()
    started = time.perf_counter()
    engine = OnnxDecoder if request["engine"] == "fused" else GrowingDecoder
    decoder = engine(
        Path(request["model"]), threads=request["threads"], context_tokens=request["context_tokens"]
    )
    sets = read_prefix(Path(request["prefix"]))[0] if request["prefix"] else [None]
    load_ms = (time.perf_counter() - started) * 1e3
    totals, scores = np.zeros(len(request["rows"])), []
    for rows in sets:
        if rows is not None:
            decoder.load_prefix(rows)
        times, found = time_queries(
            AskedDecoder(decoder), request["rows"], request["answers"], warmup=request["warmup"]
        )
        totals += times
        scores.append(found)
    return {
        "load_ms": load_ms,
        "demonstrations_ms": 0.0,
        "query_ms": totals.tolist(),
        "scores": scores,
        "threads": decoder.threads,
        "baseline_rss_bytes": baseline_rss_bytes,
        "peak_rss_bytes": peak_rss_bytes(),
        "processor": processor(),
        "logical_cores": usable_cores(),
        "versions": {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__},
    }


if __name__ == "__main__":
    serve(answer)
