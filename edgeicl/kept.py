"""Folders of the cache with what was fetched or converted once: systems, wheels, environments, checkpoints.

Unlike a stage's output, none depends on edgeicl's code. Whoever uses one holds `cache_lock.in_use`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from edgeicl.store import RECORD, cache_root, digest_of, empty_folder


def kept_place(kind: str, about: object) -> Path:
    """The folder that holds the one of this kind for `about`, or will; it is whole where it exists."""
    return cache_root() / kind / digest_of(about)[:24]


def kept(kind: str, about: object, make: Callable[[Path], Mapping[str, Any]]) -> Path:
    """That folder, made by `make` where it is not there: whole or not at all, by one process at a time.

    `make` fills the folder that it is given, and returns what is to be recorded of it.
    """
    final = kept_place(kind, about)
    final.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(final.with_name(f"{final.name}.lock")):
        if not final.is_dir():
            partial = final.with_name(f"{final.name}.partial")
            empty_folder(partial, keep=None)
            record = make(partial)
            (partial / RECORD).write_text(json.dumps(dict(record), indent=1) + "\n")
            partial.rename(final)
    return final


def kept_record(folder: Path) -> dict[str, Any]:
    """What was recorded of it; empty where there is no record."""
    record = folder / RECORD
    return dict(json.loads(record.read_text())) if record.is_file() else {}
