"""The rounds of a comparison that was interrupted, until it is run again and ends.

`with kept:` around the comparison: what rounds gave stays where that is left by an error, an interrupt or a
kill, and goes when it ends. Only whole rounds are kept, one file each: a ratio is of one round's processes.
"""

from __future__ import annotations

import json
import logging
import shutil
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from edgeicl.errors import BenchError
from edgeicl.store import code_digest, digest_of, library_versions, write_atomically

log = logging.getLogger(__name__)

_KIND = "rounds"


class KeptRounds:
    """Rounds of one comparison, described by `about`: all that decides what its processes do, as JSON values.

    Other code or other versions of libraries find none.
    """

    def __init__(self, root: Path, about: object) -> None:
        digest = digest_of({"about": about, "code": code_digest(), "versions": library_versions()})
        # Named as an unfinished output of the store is, so that `cache clear` knows it.
        self.folder = root / _KIND / f"{digest[:24]}.partial"
        self._held = ExitStack()

    def __enter__(self) -> KeptRounds:
        """BenchError where the same comparison runs already."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._held.enter_context(FileLock(self.folder.with_suffix(".lock"), timeout=0))
        except Timeout:
            raise BenchError("the same comparison runs already", next_step="wait until it has ended") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.forget()
        self._held.close()

    def forget(self) -> None:
        """Drops whatever is kept."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def round(self, run: int, number: int) -> dict[str, Any] | None:
        """What was kept of round `number` of run `run`; None where it did not come to its end."""
        path = self._path(run, number)
        return json.loads(path.read_text()) if path.is_file() else None

    def keep(self, run: int, number: int, found: dict[str, Any]) -> None:
        """Writes down what a round gave."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._path(run, number), json.dumps(found))

    def _path(self, run: int, number: int) -> Path:
        return self.folder / f"run-{run}-round-{number}.json"
