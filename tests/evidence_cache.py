"""The cache in fp32 and in 8-bit integers, and half precision: bytes, memory, time, and what they lose.

    python -m tests.evidence_cache size MODEL_FOLDER
    python -m tests.evidence_cache loss MODEL_FOLDER TEXT_FILE [--separator TEXT]

print the tables of docs/results/cache.md. `size` wants a model of a real shape (`tests/opt_shaped.py` writes
one), `loss` a trained one and text that it was made for. Times are the processor's on one thread, all graphs in
turn: other programs of a busy computer change them less than they change the clock's.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from edgeicl.bench.protocol import token_trace
from edgeicl.bench.workload import Workload
from edgeicl.bench.workload_run import run_workload
from edgeicl.emit.lowering import write_model
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.models.loading import load_tokenizer
from edgeicl.models.model_folder import model_config
from edgeicl.models.onnx_decoder import OnnxDecoder
from edgeicl.quantize import cache as integer_cache
from edgeicl.quantize.cache import RoundedCache, measured_scales
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.plan_loss import PlanLoss
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.stored_weights import stored_matrix, stored_tensors
from edgeicl.quantize.student_weights import StudentWeights, read_weights
from edgeicl.report.tables import markdown
from edgeicl.specs.quant_plan import ActivationBits, CacheBits, Format, GroupPlan, QuantPlan
from edgeicl.specs.source import TextSource
from edgeicl.tasks.text_source import read_texts

INT4, INT8 = Format(bits=4, block_size=128), Format(bits=8, block_size=128)
VARIANTS: tuple[tuple[Format, CacheBits, ActivationBits], ...] = (
    (INT8, 32, 32),
    (INT8, 8, 32),
    (INT4, 32, 32),
    (INT4, 8, 32),
    (INT4, 16, 16),
)
PROMPTS, DECODED, ROUNDS = (128, 896), 32, 5
HEADROOMS = (0.9, 1.0, 1.1, 1.25, 1.5)
CALIBRATED, BLOCK_TOKENS, TESTED = (4, 16, 64), 128, 60


def written(
    folder: Path,
    model: Path,
    weights: StudentWeights,
    cache: RoundedCache,
    format_: Format,
    bits: ActivationBits,
) -> Path:
    """The graph of `model` with all groups in one format; the bytes of its files are its size."""
    stored = {group.name: stored_matrix(weights.matrices[group.name], format_) for group in weights.groups}
    source = folder / "weights"
    source.mkdir(parents=True)
    save_file(
        stored_tensors(weights, stored, activation_bits=bits) | cache.tensors(), source / "weights.safetensors"
    )
    plan = QuantPlan(
        model_digest="",
        importance="none",
        groups=tuple(GroupPlan(group=group.name, format=format_) for group in weights.groups),
        cache_bits=cache.bits,
        activation_bits=bits,
        predicted_weight_bytes=0,
        predicted_artifact_bytes=0,
        predicted_resident_bytes=0,
    )
    (source / "plan.json").write_text(plan.model_dump_json())
    write_model(folder, model_config(model), QuantizedWeights(source))
    (source / "weights.safetensors").unlink()
    return folder / "model.onnx"


def processor_ms(decoder: OnnxDecoder, trace: Any, prompt_tokens: int) -> tuple[float, float]:
    """Of reading a prompt, and of one decoded token behind it."""
    started = time.process_time()
    decoder.prefill(trace[None, :prompt_tokens])
    read = time.process_time()
    for token in trace[prompt_tokens:]:
        decoder.decode([token])
    return (read - started) * 1e3, (time.process_time() - read) * 1e3 / DECODED


def sizes(model: Path) -> None:
    weights = read_weights(model)
    vocabulary = weights.anatomy.vocabulary
    random = np.random.default_rng(0)
    scales = measured_scales(CalibratedDecoder(weights, random.integers(4, vocabulary, (12, 64)).tolist()))
    with tempfile.TemporaryDirectory() as scratch:
        graphs = []
        for number, (format_, bits, activations) in enumerate(VARIANTS):
            cache = RoundedCache(bits, scales if bits == 8 else None)
            folder = Path(scratch) / str(number)
            graphs.append(written(folder, model, weights, cache, format_, activations))
        del weights
        rows = []
        for prompt in PROMPTS:
            times = _times(graphs, prompt, vocabulary)
            for (format_, bits, activations), graph, found in zip(VARIANTS, graphs, times, strict=True):
                files = sum((graph.parent / name).stat().st_size for name in ("model.onnx", "model.onnx.data"))
                rows.append(
                    (
                        str(format_),
                        f"fp{activations}",
                        "int8" if bits == 8 else f"fp{bits}",
                        str(prompt),
                        f"{files:,}",
                        f"{_memory(graph, prompt, vocabulary) / 1e6:.1f}",
                        *(f"{median(each):.3g}" for each in zip(*found, strict=True)),
                    )
                )
    header = ("weights", "activations", "cache", "prompt", "bytes", "memory, MB", "prompt, ms", "a token, ms")
    print(markdown(header, rows))  # noqa: T201


def _times(graphs: Sequence[Path], prompt: int, vocabulary: int) -> list[list[tuple[float, float]]]:
    trace = token_trace(prompt + DECODED, vocabulary)
    decoders = [OnnxDecoder(graph, threads=1, context_tokens=len(trace)) for graph in graphs]
    rounds = [[processor_ms(decoder, trace, prompt) for decoder in decoders] for _ in range(ROUNDS + 1)]
    return [list(each) for each in zip(*rounds[1:], strict=True)]


def _memory(graph: Path, prompt: int, vocabulary: int) -> int:
    workload = Workload(1, prompt, DECODED, repetitions=1, warmup_repetitions=0)
    run: dict[str, Any] = run_workload(
        graph=graph, engine="fused", workload=workload, vocabulary=vocabulary, bytes_per_token=None
    )
    return int(run["peak_rss_bytes"] - run["baseline_rss_bytes"])


def losses(model: Path, text: Path, separator: str) -> None:
    weights = read_weights(model)
    source = TextSource(source=f"file:{text}", separator=separator)
    tokenizer = load_tokenizer(model)
    ids = [tokenizer.encode(document).ids[:BLOCK_TOKENS] for document in read_texts(source, base_folder=Path())]
    ids = [sequence for sequence in ids if len(sequence) >= BLOCK_TOKENS // 2]
    seen, unseen = ids[: max(CALIBRATED)], ids[max(CALIBRATED) : max(CALIBRATED) + TESTED]
    decoder = CalibratedDecoder(weights, unseen)
    sensitivity = Sensitivity(decoder)
    rows = []
    for count in CALIBRATED:
        full = measured_scales(CalibratedDecoder(weights, seen[:count])) / integer_cache.HEADROOM
        found = [sensitivity.loss({}, RoundedCache(8, np.float32(each) * full)) for each in HEADROOMS]
        rows.append((str(count), *(f"{loss:.2g}" for loss in found)))
    print(markdown(("sequences", *map(str, HEADROOMS)), rows))  # noqa: T201
    scales = measured_scales(CalibratedDecoder(weights, seen))
    one = np.broadcast_to(scales.max(axis=(2, 3), keepdims=True), scales.shape).copy()
    caches = (None, RoundedCache(16), RoundedCache(8, scales), RoundedCache(8, one))
    rows = []
    for format_ in (Format(bits=32), Format(bits=8, block_size=32), Format(bits=4, block_size=32)):
        plan = dict.fromkeys((group.name for group in weights.groups), format_)
        found = [PlanLoss("rtn", weights, decoder, sensitivity, cache)(plan) for cache in caches]
        rows.append((str(format_), *(f"{loss:.2g}" for loss in found)))
    names = ("weights", "fp32", "fp16", "int8, a scale a channel", "int8, a scale a layer")
    print(markdown(names, rows))  # noqa: T201


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("size", "loss"):
        command = commands.add_parser(name)
        command.add_argument("model", type=Path)
    command.add_argument("text", type=Path)
    command.add_argument("--separator", default="<|endoftext|>")
    given = parser.parse_args()
    if given.command == "size":
        sizes(given.model)
    else:
        losses(given.model, given.text, given.separator)
