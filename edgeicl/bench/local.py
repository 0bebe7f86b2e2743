"""Runs the runner on this machine, in a process of its own, and hands back what it wrote."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeicl.bench.workload import Workload
from edgeicl.errors import BenchError
from edgeicl.module_process import run_module

_TIMEOUT_S = 1800


def run_local(
    *,
    graph: Path,
    engine: str,
    workload: Workload,
    vocabulary: int,
    bytes_per_token: int | None,
    prefix: Path | None = None,
    timeout_s: float = _TIMEOUT_S,
) -> dict[str, Any]:
    """The runner's result for one graph, behind the first set of `prefix` if there is one.

    Raises:
        BenchError: the runner failed, took too long, or wrote something else than its result.
    """
    request = {
        "model": str(graph.resolve()),
        "engine": engine,
        "vocabulary": vocabulary,
        "bytes_per_token": bytes_per_token,
        "prefix": None if prefix is None else str(prefix.resolve()),
        **asdict(workload),
    }
    # Numpy's own thread pool would be counted as the runtime's.
    environment = {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    try:
        finished = run_module("edgeicl.bench.runner", request, timeout_s=timeout_s, environment=environment)
    except subprocess.TimeoutExpired as error:
        raise BenchError(
            f"the runner on {graph} did not finish within {timeout_s:.0f} s",
            next_step="ask for fewer repetitions or tokens",
        ) from error
    if finished.returncode != 0:
        raise BenchError(
            f"the runner on {graph} ended with exit code {finished.returncode}:\n{last_lines(finished.stderr)}"
        )
    return parse_runner_output(finished.stdout)


def parse_runner_output(text: str) -> dict[str, Any]:
    """The JSON object on the last line of `text`; libraries may write lines before it."""
    lines = text.strip().splitlines()
    try:
        value: dict[str, Any] = json.loads(lines[-1])
        value["decode_ms"], value["first_token_ms"]
    except (IndexError, ValueError, KeyError, TypeError) as error:
        raise BenchError(f"the runner wrote no result; its output ends with:\n{last_lines(text)}") from error
    return value


def last_lines(text: str) -> str:
    """The end of what a process wrote."""
    return "\n".join(text.strip().splitlines()[-15:]) or "(nothing)"
