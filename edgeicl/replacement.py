"""Output folders: put together beside their final name, which they get once they are whole."""

from __future__ import annotations

import getpass
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from edgeicl.errors import DataError
from edgeicl.store import digest_of, empty_folder

log = logging.getLogger(__name__)


def replaceable(output: Path, marker: str) -> Path:
    """Where `output` really is, links followed, if a folder that holds the file `marker` may be put there.

    Raises:
        DataError: something that has no `marker` and so is not ours, the current folder, or a place where
            nothing can be written.
    """
    try:
        final = output.resolve()
        if Path.cwd().is_relative_to(final):
            raise DataError(
                f"output: {final} is the current folder or holds it; it would be replaced as a whole",
                next_step="name another folder with -o, such as one within it",
            )
        parent = next(folder for folder in final.parents if os.access(folder, os.F_OK))
        if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
            found = "a folder without write permission" if parent.is_dir() else "a file"
            raise DataError(
                f"output: {final} can't be written: {parent} is {found}; expected a folder that can be written",
                next_step="choose another folder with -o",
            )
        _previous(final).exists()  # raises where the longest of the names is too long
        if final.exists() and not (final / marker).is_file() and (final.is_file() or any(final.iterdir())):
            raise DataError(
                f"output: {final} exists and was not made by this command (it has no {marker}); "
                "it will not be replaced",
                next_step="choose another folder with -o, or remove that one",
            )
    except (OSError, RuntimeError) as error:  # a name too long, a loop of links, a folder that can't be read
        raise DataError(
            f"output: {output} can't be used: {error}", next_step="choose another folder with -o"
        ) from error
    return final


@contextmanager
def replacing(output: Path, marker: str, *, keep: str | None = None) -> Iterator[Path]:
    """A folder beside `output` that takes its name, in place of an older one, if all goes well.

    It is empty, except for the folder `keep` that a stopped run left in it, which is dropped at the end. A
    kill leaves either the old folder or the new one under the final name: between the two renames the old
    one has a hidden name, and whoever comes next puts it back.

    Raises:
        DataError: see `replaceable`.
    """
    final = replaceable(output, marker)
    # Not in the cache, which runs with the same output need not share.
    locks = Path(tempfile.gettempdir()) / f"edgeicl-locks-{getpass.getuser()}"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / digest_of(str(final))[:24]):
        replaceable(final, marker)  # another run may have been here meanwhile
        previous = _previous(final)
        _recover(final, previous, marker)
        partial = final.with_name(f".{final.name}.edgeicl-partial")
        empty_folder(partial, keep=keep)
        try:
            yield partial
        except BaseException:
            if keep is None:
                shutil.rmtree(partial, ignore_errors=True)
            raise
        if keep is not None:
            shutil.rmtree(partial / keep, ignore_errors=True)
        if final.exists():
            final.rename(previous)
        partial.rename(final)
        shutil.rmtree(previous, ignore_errors=True)


def _previous(final: Path) -> Path:
    return final.with_name(f".{final.name}.edgeicl-previous")


def _recover(final: Path, previous: Path, marker: str) -> None:
    """Puts back what a killed run had moved aside."""
    if not previous.exists():
        return
    if (final / marker).is_file():
        shutil.rmtree(previous)
        return
    log.warning("%s: putting back the one that a stopped run had moved aside", final)
    if final.exists():
        final.rmdir()  # empty, or it would not be replaceable
    previous.rename(final)
