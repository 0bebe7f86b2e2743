"""`edgeicl`, killed at the worst moment of one stage: all is written, nothing has its final name.

python tests/e2e/killed_edgeicl.py STAGE ARGUMENTS...
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from edgeicl import artifact, store
from edgeicl.cli import main
from edgeicl.specs.manifest import Manifest

KILLED = sys.argv.pop(1)
_publish = store.Store._publish
_write_manifest = artifact.write_manifest


def publish(self: store.Store, partial: Path, final: Path, stage: str, digest: str) -> None:
    if stage == KILLED:
        os.kill(os.getpid(), signal.SIGKILL)
    _publish(self, partial, final, stage, digest)


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    complete = _write_manifest(folder, manifest)
    if KILLED == "artifact":
        os.kill(os.getpid(), signal.SIGKILL)
    return complete


store.Store._publish = publish  # type: ignore[method-assign]
artifact.write_manifest = write_manifest
main(sys.argv[1:])
