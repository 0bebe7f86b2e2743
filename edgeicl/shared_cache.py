"""Processes of one launch hand their work over in the cache, so all must see the same folder."""

from __future__ import annotations

import platform
import time
from pathlib import Path
from uuid import uuid4

from edgeicl.errors import DataError
from edgeicl.store import Workers

# A network file system may show another node's file only once what it knows of the folder is out of date.
_SEEN_WITHIN_S = 60.0
_LOOK_EVERY_S = 0.5


def require_shared_cache(root: Path, workers: Workers, *, seen_within_s: float = _SEEN_WITHIN_S) -> None:
    """DataError, in every process, unless each sees a file that the writer puts into `root`."""
    if workers.count == 1:
        return
    mark = root / f"shared-{workers.from_writer(uuid4().hex)}"
    if workers.is_writer:
        mark.touch()
    workers.barrier()
    found = workers.from_all((platform.node(), _seen(mark, seen_within_s)))
    if workers.is_writer:
        mark.unlink()
    blind = [f"process {index} on {host}" for index, (host, seen) in enumerate(found) if not seen]
    if blind:
        raise DataError(
            f"cache: {root} is not the same folder for all processes; {', '.join(blind)} can't see what "
            f"process 0 on {found[0][0]} writes there",
            next_step="set EDGEICL_CACHE_DIR to a folder on a disk that all nodes share",
        )


def _seen(path: Path, within_s: float) -> bool:
    until = time.monotonic() + within_s
    while not path.exists():
        if time.monotonic() > until:
            return False
        time.sleep(_LOOK_EVERY_S)
    return True
