"""The teacher with demonstrations, asked query by query by transformers, in a process of its own.

Request: folder, dtype (float32 | bfloat16), threads, demonstrations (token ids), cached, rows (token ids of
each query), answers (token ids of each label), warmup.

`cached`: keys and values of the demonstrations are computed once, and every query reads them; the cache is
cut back after each. Otherwise every query is a whole prompt. Attention is torch's fused one, and the head runs
on the last token alone.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from edgeicl.bench.headline.query_loop import Logits, serve, time_queries
from edgeicl.bench.protocol import Ids, peak_rss_bytes


class AskedTeacher:
    """A causal language model behind demonstrations [D]."""

    def __init__(self, model: Any, demonstrations: Ids, *, cached: bool, keeps: bool) -> None:
        """`keeps`: whether something follows a query, so that its keys and values are needed."""
        import torch
        from transformers import DynamicCache

        self._torch, self._new_cache = torch, DynamicCache
        self._model, self._demonstrations, self._cached = model, demonstrations, cached
        self._keeps = keeps or cached
        self._cache: Any = None
        if cached:
            self._cache = self._new_cache(config=model.config)
            self._read(demonstrations)

    def ask(self, ids: Ids) -> Logits:
        if self._cached:
            self._cut(len(self._demonstrations))
            self._asked = len(self._demonstrations) + len(ids)
            return self._read(ids)
        self._asked = len(self._demonstrations) + len(ids)
        self._cache = self._new_cache(config=self._model.config) if self._keeps else None
        return self._read(np.concatenate([self._demonstrations, ids]))

    def follow(self, token: int) -> Logits:
        return self._read(np.array([token]))

    def ask_again(self) -> None:
        self._cut(self._asked)

    def _cut(self, tokens: int) -> None:
        if (surplus := self._cache.get_seq_length() - tokens) > 0:
            self._cache.crop(-surplus)

    def _read(self, ids: Ids) -> Logits:
        found = self._model(
            input_ids=self._torch.from_numpy(ids[None]),
            past_key_values=self._cache,
            use_cache=self._keeps,
            logits_to_keep=1,
        )
        logits: Logits = found.logits[0, -1].float().numpy()
        return logits


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What the request asks for; `scores` are [1][N][L]."""
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache  # noqa: F401  counted as libraries

    torch.set_num_threads(request["threads"])
    baseline_rss_bytes = peak_rss_bytes()
    started = time.perf_counter()
    model = AutoModelForCausalLM.from_pretrained(
        request["folder"],
        dtype=getattr(torch, request["dtype"]),
        trust_remote_code=False,
        local_files_only=True,
    ).eval()
    load_ms = (time.perf_counter() - started) * 1e3
    with torch.inference_mode():
        started = time.perf_counter()
        asked = AskedTeacher(
            model,
            np.array(request["demonstrations"], dtype=np.int64),
            cached=request["cached"],
            keeps=max(map(len, request["answers"])) > 1,
        )
        demonstrations_ms = (time.perf_counter() - started) * 1e3 if request["cached"] else 0.0
        times, scores = time_queries(asked, request["rows"], request["answers"], warmup=request["warmup"])
    return {
        "load_ms": load_ms,
        "demonstrations_ms": demonstrations_ms,
        "query_ms": times,
        "scores": [scores],
        "threads": torch.get_num_threads(),
        "baseline_rss_bytes": baseline_rss_bytes,
        "peak_rss_bytes": peak_rss_bytes(),
    }


if __name__ == "__main__":
    serve(answer)
