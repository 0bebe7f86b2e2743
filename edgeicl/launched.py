"""This process among those of a launcher (`torchrun`, `accelerate launch`): whether it is the one that speaks.

All processes run the same program and mostly meet the same mistakes, so only the first speaks. A failure of
one alone, a full disk or missing data on its node, must be told all the same, and once.
"""

from __future__ import annotations

import os
import platform
import time
from datetime import timedelta

_KEY = "edgeicl/first-failure"
_HEAD_START_S = 2.0
_ANSWERS_WITHIN = timedelta(seconds=10)


def process_count() -> int:
    """Processes of the launch; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this is the process that speaks; ordinarily the only one."""
    return process_count() <= 1 or _rank() == 0


def name() -> str:
    """`process 1 of 2 on HOST`."""
    return f"process {_rank()} of {process_count()} on {platform.node()}"


def fails_first() -> bool:
    """Whether no other process has told its failure; this one is then taken to tell its own.

    The launcher's own key-value store knows. Where it can't be asked, the first process tells.
    """
    if process_count() <= 1 or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return is_first()
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    if not is_first():
        time.sleep(_HEAD_START_S)  # where all fail of the same, the first is to tell
    key, rank = f"{_KEY}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", str(_rank())
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = TCPStore(address, port, is_master=False, timeout=_ANSWERS_WITHIN)
        told: bytes = store.compare_set(key, "", rank)
    except (RuntimeError, OSError, KeyError, ValueError):
        return is_first()
    return told.decode() == rank


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))
