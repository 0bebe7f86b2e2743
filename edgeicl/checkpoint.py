"""What a run keeps for one that comes after a kill: checkpoints of training, and single files."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from edgeicl.errors import IntegrityError
from edgeicl.store import file_sha256, verify_stage, write_record

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


def keep_file(path: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` make the file `path`, with its hash beside it; a kill leaves nothing that counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{_WRITING}")
    write(beside)
    _hash_file(path).write_text(file_sha256(beside))
    beside.replace(path)


def is_kept(path: Path) -> bool:
    """Whether `keep_file` made the file `path`; a warning where it is another one now."""
    if not (path.is_file() and _hash_file(path).is_file()):
        return False
    if file_sha256(path) == _hash_file(path).read_text():
        return True
    log.warning("checkpoint: %s is not the file that was written; made anew", path)
    return False


def _hash_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name.isdigit())
