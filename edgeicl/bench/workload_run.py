"""Runs one workload of one graph on a device: places what the runner needs, asks it, hands back its answer."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgeicl.bench.devices.device import Device, Workbench
from edgeicl.bench.devices.local import THIS_COMPUTER
from edgeicl.bench.workload import Workload
from edgeicl.errors import BenchError
from edgeicl.specs.manifest import WEIGHTS_FILE

_TIMEOUT_S = 1800


def run_workload(
    *,
    graph: Path,
    engine: str,
    workload: Workload,
    vocabulary: int,
    bytes_per_token: int | None,
    prefix: Path | None = None,
    device: Device = THIS_COMPUTER,
    timeout_s: float = _TIMEOUT_S,
) -> dict[str, Any]:
    """The runner's result for one graph, behind the first set of `prefix` if there is one.

    Raises:
        BenchError: the runner failed, took too long, or wrote something else than its result.
    """
    with device.open() as bench:
        return run_on(
            bench,
            graph=graph,
            engine=engine,
            workload=workload,
            vocabulary=vocabulary,
            bytes_per_token=bytes_per_token,
            prefix=prefix,
            timeout_s=timeout_s,
        )


def run_on(
    bench: Workbench,
    *,
    graph: Path,
    engine: str,
    workload: Workload,
    vocabulary: int,
    bytes_per_token: int | None,
    prefix: Path | None = None,
    timeout_s: float = _TIMEOUT_S,
) -> dict[str, Any]:
    """The same on a workbench that is open already, where files that lie there are not sent again."""
    weights = graph.with_name(WEIGHTS_FILE)
    files = [graph, *([weights] if weights.is_file() else []), *([prefix] if prefix else [])]
    bench.place({file.name: file for file in files})
    request = {
        "model": bench.path(graph.name),
        "engine": engine,
        "vocabulary": vocabulary,
        "bytes_per_token": bytes_per_token,
        "prefix": None if prefix is None else bench.path(prefix.name),
        **asdict(workload),
    }
    found = bench.run("runner", request, timeout_s=timeout_s)
    if not {"decode_ms", "first_token_ms"} <= set(found):
        raise BenchError(f"the runner wrote no result, but {', '.join(found) or 'nothing'}")
    return found
