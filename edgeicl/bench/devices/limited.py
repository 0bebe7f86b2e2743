"""Puts limits on this process, checks that they hold, and becomes one of our programs.

`python -m edgeicl.bench.devices.limited LIMITS MODULE`: LIMITS is JSON with cores (null: all), group (null, or
the file through which a control group is joined) and data_bytes (null, or RLIMIT_DATA). Standard library alone;
what the interpreter of the program itself takes counts, what this one took doesn't.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

CANNOT_LIMIT = 97
"""Exit code where a limit could not be set, or was not there when read back."""


class NotHeldError(Exception):
    """A limit that doesn't hold; says which."""


def limit(limits: dict[str, Any]) -> None:
    """Sets every limit and reads it back. OSError or NotHeldError where one doesn't hold."""
    if cores := limits["cores"]:
        os.sched_setaffinity(0, cores)
        if (held := os.sched_getaffinity(0)) != set(cores):
            raise NotHeldError(f"asked for cores {sorted(cores)}, the system gave {sorted(held)}")
    if limits["group"] is not None:
        file = Path(limits["group"])
        file.write_text(str(os.getpid()))
        if str(os.getpid()) not in file.read_text().split():
            raise NotHeldError(f"{file} doesn't have this process")
    if limits["data_bytes"] is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (limits["data_bytes"],) * 2)
        if resource.getrlimit(resource.RLIMIT_DATA)[0] != limits["data_bytes"]:
            raise NotHeldError("RLIMIT_DATA reads another number")


def main() -> None:
    """Limits this process and replaces it, which keeps the limits."""
    limits, module = json.loads(sys.argv[1]), sys.argv[2]
    try:
        limit(limits)
    except (OSError, NotHeldError, ValueError) as error:
        sys.stderr.write(f"a limit can't be set: {error}\n")
        sys.exit(CANNOT_LIMIT)
    os.execv(sys.executable, [sys.executable, "-m", module])


if __name__ == "__main__":
    main()
