"""One student through its own lowering and through Optimum's exporter: bytes, speed and memory, in turn.

`python -m tests.evidence_fallback MODEL_FOLDER OUTPUT` prints the table of docs/results/fallback.md.
MODEL_FOLDER is an OPT, GPT-2 or Llama in the hub's layout. Its second artifact is compiled with its row taken
out of the table of architectures; every weight group of both has the same format.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import median
from typing import Any, cast

from edgeicl.bench.stage import bench
from edgeicl.bench.workload import Workload
from edgeicl.job import resolve
from edgeicl.models.architectures.table import ARCHITECTURES
from edgeicl.pipeline import compile_job
from edgeicl.specs.measurement import BenchResult

_OVERRIDES = (
    *("distill.method=none", "distill.teacher=null", "limits.accuracy_drop_points=100"),
    *("task.train.limit=40", "task.in_domain.limit=8", "task.out_of_domain=null"),
    "quantize.calibration_examples=1",
)


def compiled(model: Path, output: Path, *, bits: int, row: bool) -> Path:
    """The folder of an artifact in blocks of 32, with or without the architecture's row."""
    rows = cast("dict[str, Any]", ARCHITECTURES)
    kept = dict(rows)
    if not row:
        rows.clear()
    try:
        job = resolve(
            "quickstart",
            targets=("host-cpu",),
            output=output,
            recipe_overrides=(*_OVERRIDES, f"distill.student.model={model.resolve()}"),
            target_overrides=(
                f"formats=[{{bits: {bits}, block_size: 32}}]",
                "budget={artifact_bytes: 2GB}",
                "context_tokens=256",
            ),
        )
        done = compile_job(job, measure=False)
    finally:
        rows.update(kept)
    assert done is not None
    return done.built[0].folder


def main() -> None:
    """Compiles both artifacts for 4 and 8 bits, then measures the two in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--bits", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for bits in arguments.bits:
        folders = {
            name: compiled(arguments.model, arguments.output / f"{name}-{bits}", bits=bits, row=row)
            for name, row in (("lowering", True), ("exporter", False))
        }
        runs: dict[str, list[BenchResult]] = {name: [] for name in folders}
        for _ in range(arguments.rounds):
            for name, folder in folders.items():
                runs[name].append(bench(folder, Workload(2, 64, 32, repetitions=3, warmup_repetitions=1)))
        for name, results in runs.items():
            decode = median(result.decode_tokens_per_second or 0.0 for result in results)
            prefill = median(result.prefill_tokens_per_second for result in results)
            peak = median(result.peak_rss_bytes for result in results)
            print(  # noqa: T201 - the table
                f"| int{bits}/block32, {name} | {results[0].artifact_bytes:,} | {decode:.0f} | {prefill:.0f} | "
                f"{peak / 1e6:.0f} MB |"
            )


if __name__ == "__main__":
    main()
