"""What quantizing, emitting and checking a student holds at its peak, and how long it takes.

    python -m tests.streaming_memory MODEL_FOLDER [--set KEY=VALUE ...] [--target-set KEY=VALUE ...]

prints the figures of docs/results/scale.md: the stages of `edgeicl compile` after distillation, from the
quickstart's recipe with `method: none`, for the target `host-cpu`, in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeicl.bench.protocol import peak_rss_bytes
from edgeicl.emit.stage import emit
from edgeicl.job import resolve
from edgeicl.models import checkpoint
from edgeicl.models.model_folder import model_folder, weights_digest
from edgeicl.quantize.stage import quantize
from edgeicl.store import Store


def compiled(
    model: str, store: Path, *, recipe: Sequence[str] = (), target: Sequence[str] = (), emits: bool = True
) -> list[float]:
    """Quantizes the model and, if asked, emits and checks it; seconds of both stages."""
    overrides = ["distill.method=none", f"distill.student.model={model}", *recipe]
    job = resolve(
        "quickstart", targets=["host-cpu"], recipe_overrides=overrides, target_overrides=target, builds=False
    )
    folder = model_folder(model)
    stages = Store(store)
    arguments: dict[str, Any] = {"student": folder, "store": stages, "base_folder": job.base_folder}
    started = time.perf_counter()
    plan = quantize(job.recipe, job.targets[0], student_digest=weights_digest(folder), **arguments)
    between = time.perf_counter()
    if emits:
        emit(job.recipe, job.targets[0], quantized=plan, **arguments)
    return [between - started, time.perf_counter() - between]


def main() -> None:
    """Prints one line of JSON; bytes of the whole process, its libraries included."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--set", action="append", default=[], dest="recipe")
    parser.add_argument("--target-set", action="append", default=[], dest="target")
    parser.add_argument(
        "--warm-up", help="a small model that is compiled first: what comes above its peak is told"
    )
    parser.add_argument("--held-bytes", type=int, default=checkpoint.HELD_BYTES, help="weights that are held")
    parser.add_argument("--quantize-only", action="store_true")
    arguments = parser.parse_args()
    checkpoint.HELD_BYTES = arguments.held_bytes
    options = {
        "recipe": arguments.recipe,
        "target": arguments.target,
        "emits": not arguments.quantize_only,
    }
    with tempfile.TemporaryDirectory() as folder:
        before = 0
        if arguments.warm_up:
            compiled(arguments.warm_up, Path(folder), **options)
            before = peak_rss_bytes() or 0
        quantize_s, emit_s = compiled(arguments.model, Path(folder), **options)
        peak = peak_rss_bytes() or 0
    figures = {
        "peak_rss_bytes": peak,
        "above_warm_up_bytes": peak - before,
        "quantize_s": round(quantize_s, 1),
        "emit_s": round(emit_s, 1),
        "cpu_s": round(time.process_time(), 1),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
