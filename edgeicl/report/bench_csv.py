"""A benchmark as CSV: one row a test, in llama-bench's words."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

import numpy as np

from edgeicl.specs.measurement import BenchResult

COLUMNS = (
    "name", "fidelity", "device", "model", "soc", "processor", "system", "backend", "runtime_version",
    "artifact_sha256", "artifact_bytes", "n_threads", "kind", "test", "n_prompt", "n_gen", "n_depth",
    "repetitions", "avg_ts", "stddev_ts", "avg_ms", "p50_ms", "p90_ms", "p99_ms", "peak_rss_bytes",
    "load_ms", "warm_load_ms", "governor", "max_temperature_before_c", "max_temperature_after_c", "notes",
)  # fmt: skip


def bench_csv(result: BenchResult, name: str) -> str:
    """The workload's prompt and decode, then every test, told apart by `kind`.

    `avg_ms` and percentiles are of a whole test; `notes` are the result's, in every row.
    """
    at = result.conditions
    depth = at.prefix_tokens
    rows = [_row(result, name, "pp", at.prompt_tokens, depth, result.first_token_samples_ms)]
    if at.decode_tokens:
        decoded = [sum(row) for row in result.decode_samples_ms]
        rows.append(_row(result, name, "tg", at.decode_tokens, depth + at.prompt_tokens, decoded))
    rows = [{"kind": "workload", **row} for row in rows]
    rows += [
        {"kind": "test", **_row(result, name, test.kind, test.tokens, test.depth, test.samples_ms)}
        for test in result.tests
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _row(
    result: BenchResult, name: str, kind: str, tokens: int, depth: int, samples_ms: Sequence[float]
) -> dict[str, Any]:
    at, device = result.conditions, result.device
    speeds = [1e3 * tokens / taken for taken in samples_ms]
    p50, p90, p99 = np.percentile(samples_ms, [50, 90, 99])
    heat = [max(state.temperatures_c.values(), default=None) for state in result.states]
    return {
        "name": name,
        "fidelity": result.fidelity,
        "device": device.address if device else "local",
        "model": device.model if device else None,
        "soc": device.soc if device else None,
        "processor": at.processor,
        "system": device.system if device else at.machine,
        "backend": ",".join(at.providers),
        "runtime_version": at.runtime_version,
        "artifact_sha256": at.artifact_sha256,
        "artifact_bytes": result.artifact_bytes,
        "n_threads": at.threads,
        "test": f"{kind}{tokens}" + (f" @ d{depth}" if depth else ""),
        "n_prompt": tokens if kind == "pp" else 0,
        "n_gen": tokens if kind == "tg" else 0,
        "n_depth": depth,
        "repetitions": len(samples_ms),
        "avg_ts": f"{mean(speeds):.6g}",
        "stddev_ts": f"{stdev(speeds):.6g}" if len(speeds) > 1 else "",
        "avg_ms": f"{mean(samples_ms):.6g}",
        "p50_ms": f"{p50:.6g}",
        "p90_ms": f"{p90:.6g}",
        "p99_ms": f"{p99:.6g}",
        "peak_rss_bytes": result.peak_rss_bytes,
        "load_ms": f"{result.load_ms:.6g}",
        "warm_load_ms": "" if result.warm_load_ms is None else f"{result.warm_load_ms:.6g}",
        "governor": "/".join(result.states[0].governors) if result.states else "",
        "max_temperature_before_c": heat[0] if heat else None,
        "max_temperature_after_c": heat[-1] if heat else None,
        "notes": "; ".join(result.notes),
    }
