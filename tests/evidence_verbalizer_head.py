"""The full head beside the verbalizers' one: bytes, memory and the time of a prompt, in turn.

`python -m tests.evidence_verbalizer_head MODEL_FOLDER` prints the table of docs/results/verbalizer-head.md.
MODEL_FOLDER is in the hub's layout; `tests/opt_shaped.py` writes one of OPT-125M's shape. Both artifacts are
compiled by the command line, from the same weights in the same formats. The time to the first token is counted
as the processor's on one thread, which other programs of a busy computer hardly change.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from edgeicl.bench.artifact import Artifact, open_artifact
from edgeicl.bench.protocol import token_trace
from edgeicl.bench.workload import Workload
from edgeicl.bench.workload_run import run_workload

HEADS = ("full", "verbalizers")
FORMATS = ("{bits: 4, block_size: 32}", "{bits: 4, block_size: 128}")
PROMPTS = (4, 16, 64)
_OVERRIDES = (
    *("distill.method=none", "distill.teacher=null", "limits.accuracy_drop_points=20"),
    *("task.train.limit=40", "task.in_domain.limit=16", "task.out_of_domain=null"),
    *("quantize.calibration_examples=2",),
)


def compiled(model: Path, head: str, format_: str, output: Path) -> Artifact:
    """An artifact with every group in `format_`."""
    overrides = [*_OVERRIDES, f"distill.student.model={model.resolve()}", f"emit.head={head}"]
    target = [f"formats=[{format_}]", "budget={artifact_bytes: 1GB}", "context_tokens=256"]
    command = [sys.executable, "-m", "edgeicl", "compile", "quickstart", "-t", "host-cpu", "--no-bench"]
    command += ["-o", str(output), *(word for key in overrides for word in ("--set", key))]
    command += [word for key in target for word in ("--target-set", key)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return open_artifact(output)


def resident_bytes(artifact: Artifact, *, prompt_tokens: int) -> int:
    """Peak of a process that reads a prompt, above what it held before the model was loaded."""
    run: dict[str, Any] = run_workload(
        graph=artifact.graph,
        engine="fused",
        workload=Workload(1, prompt_tokens, 0, repetitions=1, warmup_repetitions=1),
        vocabulary=artifact.vocabulary,
        bytes_per_token=None,
    )
    return int(run["peak_rss_bytes"] - run["baseline_rss_bytes"])


def first_token_ms(artifacts: Sequence[Artifact], *, prompt_tokens: int, rounds: int) -> list[list[float]]:
    """Processor time of a prompt for each artifact, by round: all of them in turn, after two to warm up."""
    decoders = [artifact.decoder(threads=1, context_tokens=prompt_tokens + 1) for artifact in artifacts]
    prompt = token_trace(prompt_tokens, artifacts[0].vocabulary)[None]
    found: list[list[float]] = [[] for _ in artifacts]
    for _ in range(2 + rounds):
        for times, decoder in zip(found, decoders, strict=True):
            started = time.process_time()
            decoder.prefill(prompt)
            times.append(1e3 * (time.process_time() - started))
    return [times[2:] for times in found]


def row(format_: str, artifacts: Sequence[Artifact], *, prompt_tokens: int, rounds: int) -> str:
    """One line of the table; ratios are verbalizers over full, of times pair by pair."""
    files = [artifact.artifact_bytes / 1e6 for artifact in artifacts]
    memory = [resident_bytes(artifact, prompt_tokens=prompt_tokens) / 1e6 for artifact in artifacts]
    times = first_token_ms(artifacts, prompt_tokens=prompt_tokens, rounds=rounds)
    cells = [f"{full:.1f} | {labels:.1f} MB | {labels / full:.2f}" for full, labels in (files, memory)]
    low, middle, high = quantiles([b / a for a, b in zip(*times, strict=True)], n=4)
    cells.append(f"{median(times[0]):.1f} | {median(times[1]):.1f} ms | {middle:.2f} ({low:.2f} to {high:.2f})")
    return f"| {format_} | {prompt_tokens} | {' | '.join(cells)} |"


def main() -> None:
    """Prints a row for each format and prompt."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--rounds", type=int, default=41)
    arguments = parser.parse_args()
    write = sys.stdout.write
    write("| format | prompt | files, full | labels | ratio | memory, full | labels | ratio ")
    write("| first token, full | labels | ratio |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
    for format_ in FORMATS:
        with tempfile.TemporaryDirectory() as folder:
            built = [compiled(arguments.model, head, format_, Path(folder) / head) for head in HEADS]
            for prompt_tokens in PROMPTS:
                line = row(format_, built, prompt_tokens=prompt_tokens, rounds=arguments.rounds)
                write(f"{line}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
