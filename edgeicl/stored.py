"""The cache seen as a whole: what is in it, emptying it, and reading it without building anything."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from edgeicl.cache_lock import alone
from edgeicl.store import RECORD, StageOutput, Store

_PARTIAL = ".partial"
# A cache may lie in a folder that holds other things too: only what has such a name is ours.
_OUTPUT_NAME = re.compile(r"[0-9a-f]{24}(\.partial)?")


@dataclass(frozen=True)
class Stored:
    """One stage output, or what a killed run left of one."""

    stage: str
    digest: str
    bytes: int
    finished: bool


def stored(root: Path) -> list[Stored]:
    """Everything below `root` that `clear` would remove."""
    return [
        Stored(
            stage=folder.parent.name,
            digest=folder.name.removesuffix(_PARTIAL),
            bytes=sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file()),
            finished=not folder.name.endswith(_PARTIAL) and (folder / RECORD).is_file(),
        )
        for folder in sorted(_outputs(root))
    ]


def clear(root: Path) -> tuple[int, int]:
    """Removes stage outputs, finished or not; (removed, left because they are being built).

    Raises:
        EdgeiclError: a build uses the cache; nothing was removed.
    """
    removed = left = 0
    with alone(root, "cache clear"):
        for output in _outputs(root):
            final = output.with_name(output.name.removesuffix(_PARTIAL))
            try:
                with FileLock(final.with_name(f"{final.name}.lock"), timeout=0):
                    _remove(output)
                    removed += 1
            except Timeout:
                left += 1
    return removed, left


class NotStoredError(LookupError):
    """The first stage that has no output in the store."""

    def __init__(self, stage: str) -> None:
        super().__init__(stage)
        self.stage = stage


class ReadOnlyStore(Store):
    """Hands out what is stored and writes nothing; `found` lists the stages that were, in order.

    Whatever runs on it goes as far as the first output that isn't there, and does no work on the way.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.found: list[str] = []

    def run(self, stage: str, inputs: Mapping[str, Any], build: Callable[[Path], None]) -> StageOutput:
        """The stored output. NotStoredError where there is none; `build` is never called."""
        final, digest = self.place(stage, inputs)
        if not self.holds(stage, inputs):
            raise NotStoredError(stage)
        self.found.append(stage)
        return StageOutput(final, digest, reused=True, seconds=0.0)


def _outputs(root: Path) -> Iterator[Path]:
    for path in sorted(root.glob("*/*"), reverse=True):  # a partial folder before the finished one
        if path.is_dir() and _OUTPUT_NAME.fullmatch(path.name):
            yield path


def _remove(output: Path) -> None:
    """A kill leaves what is whole or a partial folder, never half of an output under its final name."""
    if not output.name.endswith(_PARTIAL):
        output = output.rename(output.with_name(f"{output.name}{_PARTIAL}"))
    shutil.rmtree(output)
