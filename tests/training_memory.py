"""What training takes, in memory and time: full, with LoRA and with BitFit, on an OPT-shaped model.

    python -m tests.training_memory TOKENIZER_FOLDER [--shape 125m] [--steps 3] [--device cpu]

prints the table of docs/results/context-distillation.md. Each is trained in a process of its own by the code
of `edgeicl compile`; the weights are random, which neither memory nor time depends on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ADAPTERS = ("none", "lora", "bitfit")
QUERY_TOKENS, BATCH = 64, 16
SAVING = 0.4
"""What LoRA and BitFit save at least, as a share of what full training takes."""


def train(
    adapter: str, folder: Path, *, steps: int, device: str, checkpointing: bool = False
) -> dict[str, Any]:
    """Trains the model in `folder`: bytes above those before it was loaded, and seconds a step.

    On CUDA the bytes are those that torch allocated there, else those that the process held.
    """
    import numpy as np
    import torch
    from accelerate import PartialState

    from edgeicl.bench.protocol import peak_rss_bytes
    from edgeicl.distill.adapter import adapted
    from edgeicl.distill.label_reader import LabelReader
    from edgeicl.distill.student import distill_student
    from edgeicl.distill.trainer import TrainingSettings
    from edgeicl.models.loading import load_model

    where = torch.device(PartialState(cpu=device == "cpu").device)
    before = peak_rss_bytes()
    reader = LabelReader(load_model(folder, device=where))
    rng = np.random.default_rng(0)
    rows = rng.integers(4, 1000, (BATCH * steps, QUERY_TOKENS)).tolist()
    settings = TrainingSettings(
        learning_rate=1e-5,
        epochs=1,
        batch_size=BATCH,
        warmup_ratio=0.0,
        weight_decay=0.0,
        max_gradient_norm=1.0,
        checkpoint_every_steps=steps,
        gradient_checkpointing=checkpointing,
    )
    with adapted(reader.model, adapter, rank=8, alpha=16):  # type: ignore[arg-type]
        started = time.perf_counter()
        distill_student(
            reader,
            rows=rows,
            tokens=[(100,), (200,)],
            targets=np.log(np.full((len(rows), 2), 0.5, dtype=np.float32)),
            gold=np.zeros(len(rows), dtype=np.int64),
            over="verbalizers",
            kl=1.0,
            ce=0.0,
            temperature=1.0,
            settings=settings,
            seed=0,
            checkpoint_folder=None,
        )
        seconds = (time.perf_counter() - started) / steps
    after = peak_rss_bytes()
    assert before is not None
    assert after is not None
    peak = torch.cuda.max_memory_allocated(where) if where.type == "cuda" else after - before
    return {"device": where.type, "peak_bytes": peak, "seconds_a_step": seconds}


def measured(
    adapter: str, folder: Path, *, steps: int, device: str, checkpointing: bool = False
) -> dict[str, Any]:
    """`train` in a process of its own."""
    request = [adapter, str(folder), str(steps), device, str(checkpointing)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.training_memory", "--one", json.dumps(request)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        check=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Prints the table; bytes in gigabytes of 10^9."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--shape", default="125m")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    from tests.opt_shaped import write_opt_shaped

    with tempfile.TemporaryDirectory() as folder:
        write_opt_shaped(arguments.shape, arguments.tokenizer, Path(folder))
        write = sys.stdout.write
        write("| trained | peak GB | saved | s a step |\n|---|---|---|---|\n")
        full = 0
        for checkpointing in (False, True):
            for adapter in ADAPTERS:
                found = measured(
                    adapter,
                    Path(folder),
                    steps=arguments.steps,
                    device=arguments.device,
                    checkpointing=checkpointing,
                )
                full = full or found["peak_bytes"]
                name = ("all" if adapter == "none" else adapter) + ", activations recomputed" * checkpointing
                saved = f"{100 * (1 - found['peak_bytes'] / full):.0f} %"
                write(
                    f"| {name} | {found['peak_bytes'] / 1e9:.2f} | {saved} | {found['seconds_a_step']:.1f} |\n"
                )
                sys.stdout.flush()


def _one(request: str) -> None:
    adapter, folder, steps, device, checkpointing = json.loads(request)
    found = train(adapter, Path(folder), steps=int(steps), device=device, checkpointing=checkpointing == "True")
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        _one(sys.argv[2])
    else:
        main()
