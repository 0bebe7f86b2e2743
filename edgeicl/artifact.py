"""The folder that is deployed, and the manifest that makes it one."""

from __future__ import annotations

from pathlib import Path

from edgeicl.specs.manifest import MANIFEST, Manifest
from edgeicl.store import folder_hashes


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Writes `manifest` into `folder` with the hash of every other file in it; returns what was written."""
    hashes = {name: sha256 for name, sha256 in folder_hashes(folder).items() if name != MANIFEST}
    complete = manifest.model_copy(update={"files": hashes})
    (folder / MANIFEST).write_text(complete.model_dump_json(indent=1) + "\n")
    return complete
