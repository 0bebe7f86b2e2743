"""`edgeicl probe`: measures what a device takes for the parts of a decoder, and writes a target that says so.

Products in each format at the shape of OPT-125M's layers, with one token and with a prompt; attention, and what
stands between products, with a prompt; and the same graphs with next to no arithmetic, whose time is that of
their nodes. Each format is a process of its own, so that only one copy of the weights is in memory.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from edgeicl.bench.devices.device import Device, Workbench
from edgeicl.bench.devices.local import THIS_COMPUTER
from edgeicl.emit.probe_graphs import Shape, write_activations, write_attention, write_products
from edgeicl.errors import BenchError, Problem, SpecError
from edgeicl.probed_computer import check_probed
from edgeicl.progress import track
from edgeicl.specs.format_cost import FormatCost
from edgeicl.specs.manifest import MODEL_FILE
from edgeicl.specs.quant_plan import BY_ROW, Format, PromptAttention
from edgeicl.specs.target import VNNI, Calibration, Target

log = logging.getLogger(__name__)

LAYERS = Shape(layers=12, hidden=768, inner=3072, heads=12)
PROMPT_TOKENS = 128
_SECONDS = 3.0  # of timing for each format, and about as long to write and load its graphs
_TIMEOUT_S = 300
_REFUSED = "[ONNXRuntimeError]"  # in what the runtime says of a graph that it doesn't take


def probe(
    target: Target,
    *,
    threads: int | None = None,
    shape: Shape = LAYERS,
    seconds: float = _SECONDS,
    device: Device = THIS_COMPUTER,
) -> Target:
    """`target` with what a device measured: its calibration, and what depends on it.

    `prompt_format` is offered where the processor multiplies 8-bit integers without saturating.

    Raises:
        SpecError: a target of another kind of device than the one measured, or more threads than cores.
        BenchError: a graph that doesn't run, or a device whose times mean nothing.
    """
    if device.fidelity is None:
        raise BenchError(f"{device.address}: times mean nothing there", next_step="probe another device")
    with device.open() as bench:
        return _probed(target, bench, device, threads=threads, shape=shape, seconds=seconds)


def _probed(
    target: Target, bench: Workbench, device: Device, *, threads: int | None, shape: Shape, seconds: float
) -> Target:
    runner = _Runner(bench, threads or 1, seconds, shape)
    about = runner.device()
    check_probed(target, about["architecture"])
    cores = about["logical_cores"]
    used = threads or min(cores, target.threads)
    if used > cores:
        found = Problem("--threads", f"{used} threads on {cores} cores", f"expected at most {cores}")
        raise SpecError("threads", [found], next_step="ask for fewer, or leave --threads out")
    runner.threads = used
    vnni = [name for name in about["features"] if name in VNNI]
    features = (*target.instruction_features, *(f for f in vnni if f not in target.instruction_features))
    integers = "avx2" not in features or bool({*features} & {*VNNI})
    formats = [f for f in target.formats if f.bits != 16]
    formats += [BY_ROW] if integers and BY_ROW not in formats else []
    name = ", ".join(filter(None, [about["model"], about["soc"]])) or about["processor"]
    with track("probing", len(formats) + 2) as advance:
        bandwidth, version = runner.bandwidth()
        advance(1)
        costs = []
        for format_ in formats:
            costs.append(runner.cost(format_))
            advance(1)
        rest = runner.rest() | runner.integer_cache()
        advance(1)
    busy = median(runner.disturbance)
    calibration = Calibration(
        bandwidth_bytes_per_second=bandwidth,
        costs=tuple(costs),
        fixed_layers=shape.layers,
        **rest,
        disturbance=_significant(busy),
        measurements=2 * len(costs) + len(rest),
        source=f"edgeicl probe, {device.fidelity}: {name}, {used} threads, onnxruntime {version}; "
        f"{shape.layers} layers of {shape.hidden}, prompts of {PROMPT_TOKENS} tokens; least of the times "
        f"within {seconds:g} s, whose median was {busy:.2g} times as long",
    )
    if calibration.disturbed:
        log.warning(
            "the device is busy: the medians of its times were %.2g times the least; probe again when it is "
            "idle, or expect predictions to be off by as much",
            busy,
        )
    return target.model_copy(
        update={
            "description": f"{name}, {used} threads, {device.fidelity} by edgeicl probe, from {target.name}",
            "threads": used,
            "calibration": calibration,
            "instruction_features": features,
            "prompt_format": BY_ROW if integers else None,
        }
    )


class _Runner:
    """Writes graphs and has them timed."""

    def __init__(self, bench: Workbench, threads: int, seconds: float, shape: Shape) -> None:
        self._bench, self.threads, self._seconds, self._shape = bench, threads, seconds, shape
        self._placed = 0
        self.disturbance: list[float] = []
        # of the least width that all blocks divide
        self._empty = Shape(layers=shape.layers, hidden=256, inner=512, heads=4)

    def device(self) -> dict[str, Any]:
        """What the device says of itself."""
        request: dict[str, Any] = {"threads": None, "graphs": []}
        about: dict[str, Any] = self._bench.run("graph_times", request, timeout_s=_TIMEOUT_S)["device"]
        return about

    def bandwidth(self) -> tuple[float, str]:
        """Bytes per second, and the version of the runtime."""
        found = self._run([])
        return found["bandwidth"], found["runtime_version"]

    def cost(self, format_: Format) -> FormatCost:
        """Of products in the format: above what those of few weights take, by the weights."""
        with tempfile.TemporaryDirectory() as folder:
            graphs = []
            for name, shape in (("all", self._shape), ("few", self._empty)):
                write_products(Path(folder) / name, shape, format_)
                inputs = {"stream": shape.hidden, "inner": shape.inner}
                graphs.append(_graph(Path(folder) / name, inputs, [1, PROMPT_TOKENS]))
            try:
                token, prompt, few_token, few_prompt = self._times(graphs)
            except BenchError as error:
                if _REFUSED not in str(error):
                    raise
                raise BenchError(
                    f"{format_}: the device's runtime refuses it: {error.args[0]}",
                    next_step="take the format out of the target",
                ) from error
        if token <= few_token or prompt <= few_prompt:
            raise BenchError(
                f"{format_}: {self._shape.weights:,} weights took {token:.3g} ms with one token, {prompt:.3g} "
                f"with a prompt; {self._empty.weights:,} took {few_token:.3g} and {few_prompt:.3g}",
                next_step="end what else runs on the device, and probe again",
            )
        weights = self._shape.weights - self._empty.weights
        return FormatCost(
            format=format_,
            decode_ps_per_weight=_significant((token - few_token) * 1e9 / weights),
            prompt_ps_per_weight=_significant((prompt - few_prompt) * 1e9 / (weights * PROMPT_TOKENS)),
        )

    def rest(self) -> dict[str, float]:
        """What a calibration says of nodes, activations and attention."""
        shape, few = self._shape, self._empty
        with tempfile.TemporaryDirectory() as named:
            folder = Path(named)
            write_activations(folder / "activations", shape)
            write_products(folder / "few", few, Format(bits=4, block_size=32))
            ways: tuple[PromptAttention, ...] = ("tiled", "whole")
            for way in ways:
                write_attention(folder / way, shape, way)
            wide = {"stream": shape.hidden, "inner": shape.inner}
            graphs = [
                _graph(folder / "activations", wide, [1, PROMPT_TOKENS]),
                _graph(folder / "few", {"stream": few.hidden, "inner": few.inner}, [1]),
                *(_graph(folder / way, {"qkv": 3 * shape.hidden}, [1, PROMPT_TOKENS]) for way in ways),
            ]
            one_active, active, few_products, *attended = self._times(graphs)
        fixed = one_active + attended[0] + few_products
        products = 2 * shape.layers * shape.hidden * PROMPT_TOKENS**2
        tiled, whole = _of_prompts(attended)
        found = {
            "fixed_decode_ms": fixed,
            "fixed_prompt_ms": fixed,
            "activation_ps_per_number": max(active - one_active, 0.0) * 1e9 / (shape.numbers * PROMPT_TOKENS),
            "attention_ps_per_product": tiled * 1e9 / products,
            "whole_attention_ps_per_product": whole * 1e9 / products,
        }
        return {name: _significant(value) for name, value in found.items()}

    def integer_cache(self) -> dict[str, float]:
        """What a calibration says of keys and values in 8 bits; nothing where the runtime doesn't take them."""
        shape = self._shape
        with tempfile.TemporaryDirectory() as named:
            folder = Path(named)
            write_attention(folder / "whole", shape, "whole")
            write_attention(folder / "read", shape, "tiled", 8, PROMPT_TOKENS)
            write_attention(folder / "made", shape, "whole", 8, PROMPT_TOKENS)  # after attention
            inputs = {"qkv": 3 * shape.hidden}
            graphs = [_graph(folder / way, inputs, [1, PROMPT_TOKENS]) for way in ("whole", "read", "made")]
            try:
                whole, read, made = _of_prompts(self._times(graphs))
            except BenchError as error:
                if _REFUSED not in str(error):
                    raise
                log.info("the device's runtime takes no keys and values in 8 bits: %s", error.args[0])
                return {}
        numbers = 2 * shape.layers * shape.hidden * PROMPT_TOKENS
        return {
            "integer_attention_ps_per_product": _significant(read * 1e9 / (numbers * PROMPT_TOKENS)),
            "cache_rounding_ps_per_number": _significant(max(made - whole, 0.0) * 1e9 / numbers),
        }

    def _times(self, graphs: list[dict[str, Any]]) -> list[float]:
        found = self._run(graphs)
        ratios = [middle / least for middle, least in zip(found["median_ms"], found["ms"], strict=True)]
        self.disturbance.append(max(ratios))
        times: list[float] = found["ms"]
        return times

    def _run(self, graphs: list[dict[str, Any]]) -> dict[str, Any]:
        placed = [graph | {"model": self._place(Path(graph["model"]))} for graph in graphs]
        seconds = self._seconds * max(1, len(graphs) / 2)  # a cost is of two graphs
        request = {"threads": self.threads, "graphs": placed, "seconds": seconds}
        return self._bench.run("graph_times", request, timeout_s=_TIMEOUT_S)

    def _place(self, graph: Path) -> str:
        """The path there of a graph, sent with its weights into a folder of its own."""
        self._placed += 1
        files = {f"{self._placed}/{file.name}": file for file in graph.parent.iterdir()}
        self._bench.place(files)
        return self._bench.path(f"{self._placed}/{graph.name}")


def _of_prompts(times: list[float]) -> list[float]:
    """What the prompt takes beyond the single token, of graphs that were timed with both."""
    return [max(prompt - one, 0.0) for one, prompt in zip(times[::2], times[1::2], strict=True)]


def _graph(folder: Path, inputs: dict[str, int], tokens: list[int]) -> dict[str, Any]:
    return {"model": str(folder / MODEL_FILE), "inputs": inputs, "tokens": tokens}


def _significant(value: float) -> float:
    """Three digits: no measurement here has more."""
    return float(f"{value:.3g}")
