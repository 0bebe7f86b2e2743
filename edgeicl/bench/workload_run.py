"""Runs one workload of one graph on a device: places what the runner needs, asks it, hands back its answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgeicl.bench.artifact import Artifact
from edgeicl.bench.devices.device import Device, Workbench
from edgeicl.bench.devices.local import THIS_COMPUTER
from edgeicl.bench.workload import Workload
from edgeicl.errors import BenchError
from edgeicl.specs.manifest import PREFIX_FILE, WEIGHTS_FILE

_TIMEOUT_S = 1800


@dataclass(frozen=True)
class PlacedGraph:
    """A graph that lies on a workbench, ready to be asked about as often as one likes."""

    bench: Workbench
    model: str
    prefix: str | None
    engine: str
    vocabulary: int

    def ask(
        self, action: str, workload: Workload, *, timeout_s: float = _TIMEOUT_S, waits: int = 0, **more: Any
    ) -> dict[str, Any]:
        """What the runner answers, in a process of its own; `more` is what the action needs besides.

        `waits`: how often it may cool down, which is given to it beyond `timeout_s`.

        Raises:
            BenchError: the runner failed, took too long, or wrote something else than its result.
        """
        request = {
            "action": action,
            "model": self.model,
            "engine": self.engine,
            "vocabulary": self.vocabulary,
            "prefix": self.prefix,
            **asdict(workload),
            **more,
        }
        timeout_s += waits * float(more.get("cool_down_s", 0.0))
        found = self.bench.run("runner", request, timeout_s=timeout_s)
        if "threads" not in found:
            raise BenchError(f"the runner wrote no result, but {', '.join(found) or 'nothing'}")
        return found

    def answer(self, action: str, *, timeout_s: float, **asked: Any) -> dict[str, Any]:
        """What the program `answers` says to `action`. BenchError where it fails or takes too long."""
        request = {"action": action, "model": self.model, "engine": self.engine, "prefix": self.prefix, **asked}
        return self.bench.run("answers", request, timeout_s=timeout_s)


def place_artifact(bench: Workbench, artifact: Artifact, *, engine: str | None = None) -> PlacedGraph:
    """Graph, weights and prefix of an artifact, to run on its own engine unless another is named."""
    return place_graph(
        bench,
        graph=artifact.graph,
        engine=engine or artifact.manifest.engine,
        vocabulary=artifact.vocabulary,
        prefix=artifact.path / PREFIX_FILE if artifact.prefixes else None,
    )


def place_graph(
    bench: Workbench, *, graph: Path, engine: str, vocabulary: int, prefix: Path | None = None
) -> PlacedGraph:
    """Puts a graph with its weights, and the prefix before its queries if there is one, on a workbench."""
    weights = graph.with_name(WEIGHTS_FILE)
    files = [graph, *([weights] if weights.is_file() else []), *([prefix] if prefix else [])]
    bench.place({file.name: file for file in files})
    return PlacedGraph(
        bench,
        model=bench.path(graph.name),
        prefix=None if prefix is None else bench.path(prefix.name),
        engine=engine,
        vocabulary=vocabulary,
    )


def engine_on(device: Device, engine: str) -> str:
    """What runs a graph of this engine there. BenchError where nothing does."""
    if device.provider == "cpu":
        return engine
    if engine != "fused":
        raise BenchError(
            f"{device.address}: this artifact's keys and values grow from step to step, so no buffer of "
            "the GPU can hold them",
            next_step="measure it on local",
        )
    return f"cuda:{device.address.partition(':')[2] or 0}"


def probed_bytes(device: Device, bytes_per_token: int | None) -> int | None:
    """What the runner probes the memory's bandwidth with; None where such a probe has no place.

    A GPU doesn't read the host's memory, and the probe's own buffer would break a limit of memory.
    """
    return None if device.provider != "cpu" or device.limits.memory_bytes else bytes_per_token


def run_workload(
    *,
    graph: Path,
    engine: str,
    workload: Workload,
    vocabulary: int,
    bytes_per_token: int | None,
    device: Device = THIS_COMPUTER,
) -> dict[str, Any]:
    """The runner's measurement of one graph.

    Raises:
        BenchError: the runner failed, took too long, or wrote something else than its result.
    """
    with device.open() as bench:
        engine = engine_on(device, engine)
        placed = place_graph(bench, graph=graph, engine=engine, vocabulary=vocabulary)
        probed = probed_bytes(device, bytes_per_token)
        return placed.ask("measure", workload, bytes_per_token=probed)
