"""The folder that is deployed: put together beside its final name, which it gets once it is whole."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from edgeicl.errors import DataError
from edgeicl.specs.manifest import Manifest
from edgeicl.store import cache_root, digest_of, folder_hashes

log = logging.getLogger(__name__)

MANIFEST = "edgeicl.json"


def refuse_foreign_folder(final: Path) -> None:
    """DataError where `final` holds something that is no artifact, and so must not be replaced."""
    if final.exists() and not (final / MANIFEST).is_file() and (final.is_file() or any(final.iterdir())):
        raise DataError(
            f"output: {final} exists and is no artifact (it has no {MANIFEST}); it will not be replaced",
            next_step="choose another folder with -o, or remove that one",
        )


@contextmanager
def replacing(final: Path) -> Iterator[Path]:
    """An empty folder beside `final` that takes its name, in place of an older artifact, if all goes well.

    A kill leaves either the old artifact or the new one under the final name: between the two renames the
    old one is called `.previous`, and whoever comes next puts it back.
    """
    locks = cache_root() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / digest_of(str(final.resolve()))[:24]):
        _recover(final)
        refuse_foreign_folder(final)
        partial = final.with_name(f"{final.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield partial
        previous = _previous(final)
        if final.exists():
            final.rename(previous)
        partial.rename(final)
        shutil.rmtree(previous, ignore_errors=True)


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Writes `manifest` into `folder` with the hash of every other file in it; returns what was written."""
    hashes = {name: sha256 for name, sha256 in folder_hashes(folder).items() if name != MANIFEST}
    complete = manifest.model_copy(update={"files": hashes})
    (folder / MANIFEST).write_text(complete.model_dump_json(indent=1) + "\n")
    return complete


def _previous(final: Path) -> Path:
    return final.with_name(f"{final.name}.previous")


def _recover(final: Path) -> None:
    """Puts back what a killed run had moved aside."""
    previous = _previous(final)
    if not previous.exists():
        return
    if final.exists():
        shutil.rmtree(previous)
    else:
        log.warning("%s: putting back the artifact that a stopped run had moved aside", final)
        previous.rename(final)
