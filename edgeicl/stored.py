"""The store seen as a whole: what is in it, and emptying it."""

from __future__ import annotations

import shutil
from pathlib import Path

from filelock import FileLock, Timeout

from edgeicl.store import RECORD


def stored(root: Path) -> list[tuple[str, str, int]]:
    """(stage, digest, bytes) of every finished stage output below `root`."""
    folders = sorted(path.parent for path in root.glob(f"*/*/{RECORD}"))
    return [(folder.parent.name, folder.name, _folder_bytes(folder)) for folder in folders]


def clear(root: Path) -> tuple[int, int]:
    """Removes stage outputs, finished or not; (removed, left because a running build holds them)."""
    removed = left = 0
    for folder in sorted({*root.glob(f"*/*/{RECORD}"), *root.glob("*/*.partial/*")}):
        output = folder.parent
        if not output.exists():
            continue
        lock = output.with_name(f"{output.name.removesuffix('.partial')}.lock")
        try:
            with FileLock(lock, timeout=0):
                shutil.rmtree(output)
                removed += 1
        except Timeout:
            left += 1
    return removed, left


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
