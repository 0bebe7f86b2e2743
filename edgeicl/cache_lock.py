"""Who uses the cache: any number of builds beside each other, or one that removes from it, alone.

Each build holds a lock file of its own in `runs/`. Whoever wants to be alone holds the gate, which every
build passes at its start, and looks whether one of those files is held. A killed process holds nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from edgeicl.errors import DataError, EdgeiclError

log = logging.getLogger(__name__)

_PASSES_WITHIN_S = 1.0


@contextmanager
def in_use(root: Path) -> Iterator[None]:
    """Nothing is removed from the cache meanwhile; waits for a process that has it to itself."""
    gate, runs = _gate(root)
    try:
        gate.acquire(timeout=_PASSES_WITHIN_S)
    except Timeout:
        log.info("waiting: another edgeicl rebuilds or clears what is stored in %s", root)
        gate.acquire()
    run = FileLock(runs / uuid4().hex)
    try:
        run.acquire()
    finally:
        gate.release()
    try:
        yield
    finally:
        run.release()
        Path(run.lock_file).unlink(missing_ok=True)


@contextmanager
def alone(root: Path, purpose: str) -> Iterator[None]:
    """No build uses the cache meanwhile; others wait at their start.

    Raises:
        EdgeiclError: a build uses it now.
    """
    gate, runs = _gate(root)
    try:
        gate.acquire(timeout=0)
        for run in sorted(runs.iterdir()):
            with FileLock(run, timeout=0):
                pass
            run.unlink(missing_ok=True)
    except Timeout as error:
        gate.release()
        raise EdgeiclError(
            f"{purpose}: another edgeicl uses what is stored in {root}; nothing was removed",
            next_step="wait until it has ended, or name another cache with EDGEICL_CACHE_DIR",
        ) from error
    try:
        yield
    finally:
        gate.release()


def _gate(root: Path) -> tuple[FileLock, Path]:
    runs = root / "runs"
    try:
        runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cache: {root} can't be used: {error.strerror}; expected a folder that can be written",
            next_step="name another one with EDGEICL_CACHE_DIR",
        ) from error
    return FileLock(root / "runs.lock"), runs
