"""A module of this package as a process of its own: a request in JSON on its stdin, its output as text."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_PACKAGE_PARENT = Path(__file__).parents[1]


def run_module(
    module: str,
    request: Mapping[str, Any],
    *,
    timeout_s: float,
    environment: Mapping[str, str] | None = None,
    arguments: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """What `python -m module` did, with `environment` beside this process's own.

    Raises:
        subprocess.TimeoutExpired: it took longer than `timeout_s`, and was ended.
    """
    # "-m" puts the working folder first on the path: the package's own, so that no user's file is imported.
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        input=json.dumps(request),
        capture_output=True,
        text=True,
        cwd=_PACKAGE_PARENT,
        env=os.environ | dict(environment or {}),
        timeout=timeout_s,
        check=False,
    )
