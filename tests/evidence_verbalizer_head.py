"""The full head beside the verbalizers' one: bytes, memory and time to the first token, in turn.

`python -m tests.evidence_verbalizer_head MODEL_FOLDER` prints the table of docs/results/verbalizer-head.md.
MODEL_FOLDER is in the hub's layout; `tests/opt_shaped.py` writes one of OPT-125M's shape. Both artifacts are
compiled by the command line, from the same weights in the same formats.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from edgeicl.bench.artifact import Artifact, open_artifact
from edgeicl.bench.local import run_local
from edgeicl.bench.workload import Workload

HEADS = ("full", "verbalizers")
FORMATS = ("{bits: 4, block_size: 32}", "{bits: 4, block_size: 128}")
PROMPTS = (4, 16, 64)
_OVERRIDES = (
    *("distill.method=none", "distill.teacher=null", "limits.accuracy_drop_points=20"),
    *("task.train.limit=40", "task.in_domain.limit=16", "task.out_of_domain=null"),
    *("quantize.calibration_examples=2",),
)


@dataclass(frozen=True)
class Round:
    """One process: milliseconds to the first token, and bytes above those before the model was loaded."""

    first_token_ms: float
    resident_bytes: int


def compiled(model: Path, head: str, format_: str, output: Path) -> Artifact:
    """An artifact with every group in `format_`."""
    overrides = [*_OVERRIDES, f"distill.student.model={model.resolve()}", f"emit.head={head}"]
    target = [f"formats=[{format_}]", "budget={artifact_bytes: 1GB}", "context_tokens=256"]
    command = [sys.executable, "-m", "edgeicl", "compile", "quickstart", "-t", "host-cpu", "--no-bench"]
    command += ["-o", str(output), *(word for key in overrides for word in ("--set", key))]
    command += [word for key in target for word in ("--target-set", key)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return open_artifact(output)


def measured(artifact: Artifact, *, prompt_tokens: int, threads: int) -> Round:
    """The fastest of 15 prompts in a process of its own, the one least disturbed; nothing is decoded."""
    run: dict[str, Any] = run_local(
        graph=artifact.graph,
        engine="fused",
        workload=Workload(threads, prompt_tokens, 0, repetitions=15, warmup_repetitions=2),
        vocabulary=artifact.vocabulary,
        bytes_per_token=None,
    )
    return Round(min(run["first_token_ms"]), run["peak_rss_bytes"] - run["baseline_rss_bytes"])


def row(format_: str, artifacts: dict[str, Artifact], *, prompt_tokens: int, threads: int, rounds: int) -> str:
    """One line of the table; ratios are verbalizers over full, pair by pair."""
    found: dict[str, list[Round]] = {head: [] for head in HEADS}
    for _ in range(rounds):
        for head in HEADS:
            found[head].append(measured(artifacts[head], prompt_tokens=prompt_tokens, threads=threads))

    def cell(values: dict[str, list[float]], unit: str) -> str:
        full, labels = (median(values[head]) for head in HEADS)
        ratios = [b / a for a, b in zip(values["full"], values["verbalizers"], strict=True)]
        return (
            f"{full:.1f} | {labels:.1f} {unit} | {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )

    files = [artifacts[head].artifact_bytes / 1e6 for head in HEADS]
    memory = {head: [each.resident_bytes / 1e6 for each in found[head]] for head in HEADS}
    times = {head: [each.first_token_ms for each in found[head]] for head in HEADS}
    size = f"{files[0]:.1f} | {files[1]:.1f} MB | {files[1] / files[0]:.2f}"
    return f"| {format_} | {prompt_tokens} | {size} | {cell(memory, 'MB')} | {cell(times, 'ms')} |"


def main() -> None:
    """Prints a row for each format and prompt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    write = sys.stdout.write
    write("| format | prompt | files, full | labels | ratio | memory, full | labels | ratio ")
    write("| first token, full | labels | ratio |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
    for format_ in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            built = {head: compiled(arguments.model, head, format_, Path(folder) / head) for head in HEADS}
            for prompt_tokens in PROMPTS:
                line = row(
                    format_,
                    built,
                    prompt_tokens=prompt_tokens,
                    threads=arguments.threads,
                    rounds=arguments.rounds,
                )
                write(f"{line}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
