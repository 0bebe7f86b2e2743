"""The rounds of a comparison that was interrupted, until it is run again and ends.

`with kept:` around the comparison: what rounds gave stays where that is left by an error, an interrupt or a
kill, and goes when it ends. Only whole rounds are kept, one file each: a ratio is of one round's processes.
Outside of that nothing is kept or found.
"""

from __future__ import annotations

import json
import platform
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from edgeicl.bench.device_facts import processor, usable_cores
from edgeicl.errors import BenchError
from edgeicl.store import code_digest, digest_of, library_versions, write_atomically

_KIND = "rounds"


class KeptRounds:
    """Rounds of one comparison, described by `about`: all that decides what its processes do, as JSON values.

    Other code, other versions of libraries and other computers find none.
    """

    def __init__(self, root: Path, about: object) -> None:
        computer = [platform.node(), processor(), usable_cores()]
        digest = digest_of([about, computer, code_digest(), library_versions()])
        # Named as an unfinished output of the store is, so that `cache clear` knows it.
        self.folder = root / _KIND / f"{digest[:24]}.partial"
        self._lock = FileLock(self.folder.with_suffix(".lock"), timeout=0)

    def __enter__(self) -> KeptRounds:
        """BenchError where the same comparison runs already."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise BenchError("the same comparison runs already", next_step="wait until it has ended") from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()

    def round(self, run: int, number: int) -> dict[str, Any] | None:
        """What was kept of round `number` of run `run`; None where it did not come to its end."""
        path = self._path(run, number)
        if not self._lock.is_locked or not path.is_file():
            return None
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def keep(self, run: int, number: int, found: dict[str, Any]) -> None:
        """Writes down what a round gave, and when."""
        if self._lock.is_locked:
            self.folder.mkdir(parents=True, exist_ok=True)
            when = time.strftime("%Y-%m-%d %H:%M")
            write_atomically(self._path(run, number), json.dumps(found | {"when": when}))

    def _path(self, run: int, number: int) -> Path:
        return self.folder / f"run-{run}-round-{number}.json"
