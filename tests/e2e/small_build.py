"""The program as a user runs it: a process of its own, a cache of its own, the built-in models."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edgeicl.specs.manifest import Manifest

REPOSITORY = Path(__file__).parents[2]

# The quickstart with few examples: everything runs, nothing becomes good.
SMALL = (
    "task.train.limit=400",
    "task.in_domain.limit=60",
    "task.out_of_domain.limit=60",
    "distill.transfer_examples=128",
    "distill.demonstrations.seeds=[0, 1]",
    "distill.training.epochs=1",
    "distill.training.checkpoint_every_steps=1",
    "distill.baseline_epochs=1",
    "quantize.calibration_examples=4",
    "limits.accuracy_drop_points=20",
)


@dataclass(frozen=True)
class Program:
    """`edgeicl` with its cache in `cache`."""

    cache: Path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "edgeicl", *arguments]

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"EDGEICL_CACHE_DIR": str(self.cache), "OMP_NUM_THREADS": "1"}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            capture_output=True,
            text=True,
            env=self.environment,
            cwd=REPOSITORY,
            check=False,
            timeout=600,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self.environment,
            cwd=REPOSITORY,
        )


def ledger_by_file(artifact: Path, manifest: Manifest) -> dict[str, int]:
    """Bytes of every file in the ledger; they are those on the disk."""
    by_file: dict[str, int] = {}
    for entry in manifest.ledger:
        by_file[entry.file] = by_file.get(entry.file, 0) + entry.bytes
    assert by_file == {name: (artifact / name).stat().st_size for name in by_file}
    return by_file


def small_compile(output: Path, *more: str) -> list[str]:
    """Arguments of a small build of the quickstart into `output`."""
    overrides = [part for override in SMALL for part in ("--set", override)]
    return ["compile", "recipes/quickstart.yaml", "-o", str(output), "--no-bench", *overrides, *more]
