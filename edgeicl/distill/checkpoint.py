"""Checkpoints of training: the newest that is whole, or none and a warning."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from edgeicl.errors import IntegrityError
from edgeicl.store import verify_stage, write_record

log = logging.getLogger(__name__)

_WRITING = "writing"


def save_checkpoint(folder: Path, step: int, write: Callable[[Path], None], *, recipe: str = "") -> None:
    """Lets `write` fill a folder below `folder`; a kill leaves the earlier checkpoint or this one.

    `recipe` is the digest of all that decides the training, where `folder` alone does not say it.
    """
    beside, final = folder / _WRITING, folder / f"{step:09d}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    write(beside)
    write_record(beside, recipe=recipe)
    shutil.rmtree(final, ignore_errors=True)
    beside.rename(final)
    for older in _checkpoints(folder):
        if older != final:
            shutil.rmtree(older)


def newest_checkpoint(folder: Path, *, recipe: str = "") -> Path | None:
    """The folder that was filled last; None, with a warning, where it is damaged or of another recipe."""
    if not (found := _checkpoints(folder)):
        return None
    try:
        record = verify_stage(found[-1])
    except IntegrityError as error:
        log.warning("checkpoint: %s; starting over", error)
        return None
    if record.get("recipe") != recipe:
        log.warning("checkpoint: %s is of another recipe; starting over", found[-1])
        return None
    return found[-1]


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name.isdigit())
