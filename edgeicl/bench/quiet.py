"""Whether the computer has other work: looked at between processes, when nothing of ours runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

QUIET_SHARE = 0.10
"""Of all cores' time. One busy process on ten cores is as much."""
_QUIET_LOOKS = 3
_STAT = Path("/proc/stat")
_IDLE, _WAITING = 3, 4  # columns after the name: user, nice, system, idle, iowait, ...
_GUESTS = 8  # columns that count towards the total; guests' time behind them is in user's already


def busy_share(seconds: float = 0.5, *, stat: Path = _STAT) -> float | None:
    """Share of all cores' time that went to processes within `seconds`; None where the system doesn't say.

    Time that a hypervisor took away counts as busy: it is not there for a measurement either.
    """
    if not stat.is_file():
        return None
    before = _times(stat)
    time.sleep(seconds)
    spent = [after - start for after, start in zip(_times(stat), before, strict=True)]
    total = sum(spent)
    return (total - spent[_IDLE] - spent[_WAITING]) / total if total else None


def settled_share(longest_s: float = 10.0) -> float | None:
    """The same once the computer is quiet, or after `longest_s`: what has just ended still writes and frees.

    Work that comes and goes is no quiet: after a look that was not, it takes three in a row.
    """
    started = time.monotonic()
    share = busy_share()
    if share is None or share <= QUIET_SHARE:
        return share
    looks = [share]
    while max(looks[-_QUIET_LOOKS:]) > QUIET_SHARE and time.monotonic() - started < longest_s:
        looks.append(busy_share() or 0.0)
    return max(looks[-_QUIET_LOOKS:])


def disquiet(shares: Sequence[float]) -> str | None:
    """What is to be said of what others took before processes of ours; None if it was quiet, or isn't known."""
    busiest = max(shares, default=0.0)
    if busiest <= QUIET_SHARE:
        return None
    return f"other processes took up to {busiest:.0%} of the cores' time before a run (above {QUIET_SHARE:.0%})"


def _times(stat: Path) -> list[int]:
    """Ticks of all cores together since the start, by what they went to."""
    first = stat.read_text().splitlines()[0]
    return [int(field) for field in first.split()[1 : 1 + _GUESTS]]
