"""Logits of every shipped format on emulated ARM cores beside those here: the table of docs/results/arm.md.

python -m tests.evidence_arm
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeicl.bench.devices.address import device_at
from edgeicl.bench.devices.local import THIS_COMPUTER
from edgeicl.bench.devices.qemu import CORES
from edgeicl.bench.rivals.checkpoint import write_random_checkpoint
from edgeicl.report.tables import markdown
from tests.arm.test_agreement import CONFIG, FORMATS, distance, logits_on
from tests.unit.bench.conftest import build_artifact, tiny_task, tiny_tokenizer


def main() -> None:
    """Prints the table."""
    with TemporaryDirectory() as scratch:
        root = Path(scratch)
        checkpoint = write_random_checkpoint(root / "checkpoint", CONFIG)
        folders = {
            format_: build_artifact(
                root / str(format_).replace("/", "-"),
                CONFIG,
                format_,
                tiny_tokenizer(),
                tiny_task({"entailment": "yes", "contradiction": "no"}),
                checkpoint=checkpoint,
                scale=5.0,
            )
            for format_ in FORMATS
        }
        here = logits_on(THIS_COMPUTER, folders)
        there = {core: logits_on(device_at(f"qemu:{core}"), folders) for core in CORES}
    rows = [
        (str(format_), *(f"{distance(there[core][format_], here[format_]):.2g}" for core in CORES))
        for format_ in FORMATS
    ]
    sys.stdout.write(markdown(("format", *CORES), rows) + "\n")


if __name__ == "__main__":
    main()
