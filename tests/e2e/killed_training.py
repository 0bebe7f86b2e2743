"""`edgeicl`, killed in its first training once a checkpoint of STEP steps is written.

python tests/e2e/killed_training.py STEP ARGUMENTS...
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from edgeicl.cli import main
from edgeicl.distill import trainer

STEP = int(sys.argv.pop(1))
_save = trainer._save


def save(folder: Path, *state: object) -> None:
    _save(folder, *state)  # type: ignore[arg-type]
    if (folder / f"{STEP:09d}").is_dir():
        os.kill(os.getpid(), signal.SIGKILL)


trainer._save = save  # type: ignore[assignment]
main(sys.argv[1:])
