"""A Linux control group that lets one process have so much memory and no more.

Version 2 where its memory controller is delegated to us, else version 1. The group is made below our own (or,
where version 2 forbids that, beside it), so it only ever takes away from what this process may use. What can't
be made is told with its reason; nothing is changed in any group but ours.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

_PREFIX = "edgeicl-"
_REMOVAL_S = 5.0
MOUNT = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


class GroupError(Exception):
    """No such group can be made; says why."""


@dataclass(frozen=True)
class MemoryGroup:
    """One group in `folder`, with the limit that was read back."""

    folder: Path
    version: int
    limit_bytes: int
    swap_closed: bool

    @property
    def joined_through(self) -> Path:
        """Where a process writes its number to be held."""
        return self.folder / "cgroup.procs"

    @property
    def name(self) -> str:
        swap = "swap closed" if self.swap_closed else "swap not limited"
        return f"control group v{self.version}, {swap}"

    def peak_bytes(self) -> int | None:
        """Most memory that was ever used in it, caches of files among it; None where the kernel doesn't say."""
        return _number(self.folder / ("memory.peak" if self.version == 2 else "memory.max_usage_in_bytes"))

    def kills(self) -> int:
        """How many processes the kernel ended for their memory."""
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError):
                for line in (self.folder / name).read_text().splitlines():
                    key, _, value = line.partition(" ")
                    if key == "oom_kill":
                        return int(value)
        return 0

    def remove(self) -> None:
        """Removes it, as soon as the last process has left it. Never raises; what stays is logged."""
        ends = time.monotonic() + _REMOVAL_S
        while self.folder.exists():
            try:
                self.folder.rmdir()
            except OSError as error:
                if time.monotonic() > ends:
                    log.warning("%s could not be removed: %s", self.folder, error.strerror)
                    return
                time.sleep(0.02)


def make_group(limit_bytes: int, *, mount: Path = MOUNT, own_groups: Path = OWN_GROUPS) -> MemoryGroup:
    """A group of its own with this limit. GroupError with every reason why none can be made."""
    reasons = []
    try:
        own = own_groups.read_text()
    except OSError:
        raise GroupError("this system has no control groups") from None
    for version, parent in _parents(own, mount):
        sweep(parent)
        folder = parent / f"{_PREFIX}{os.getpid()}-{time.monotonic_ns()}"
        try:
            folder.mkdir()
        except OSError as error:
            reasons.append(f"{parent}: {error.strerror}")
            continue
        try:
            return _limited(folder, version, limit_bytes)
        except (OSError, GroupError) as error:
            with contextlib.suppress(OSError):
                folder.rmdir()
            reasons.append(f"{folder.parent}: {getattr(error, 'strerror', None) or error}")
    raise GroupError("; ".join(reasons) or "no control group of memory is mounted, or delegated to this user")


def _limited(folder: Path, version: int, limit_bytes: int) -> MemoryGroup:
    name, swap = ("memory.max", "memory.swap.max") if version == 2 else (
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
    )  # fmt: skip
    (folder / name).write_text(str(limit_bytes))
    swap_closed = True
    try:
        # Version 1 counts memory and swap together.
        (folder / swap).write_text("0" if version == 2 else str(limit_bytes))
    except OSError:
        swap_closed = False
    held = _number(folder / name)
    page = os.sysconf("SC_PAGE_SIZE")
    if held is None or not limit_bytes - page < held <= limit_bytes:
        raise GroupError(f"{name} reads {held} after {limit_bytes} was written")
    return MemoryGroup(folder, version, held, swap_closed)


def _parents(own: str, mount: Path) -> list[tuple[int, Path]]:
    """Where a group may be made: (version, folder)."""
    found = []
    for line in own.splitlines():
        _, controllers, path = line.split(":", 2)
        inside = path.lstrip("/")
        if not controllers:
            here = (mount if (mount / "cgroup.controllers").exists() else mount / "unified") / inside
            places = [here, here.parent] if inside else [here]
            found += [(2, place) for place in places if _delegates_memory(place)]
        elif "memory" in controllers.split(","):
            found.append((1, mount / "memory" / inside))
    return sorted((entry for entry in found if entry[1].is_dir()), key=lambda entry: -entry[0])


def _delegates_memory(folder: Path) -> bool:
    try:
        return "memory" in (folder / "cgroup.subtree_control").read_text().split()
    except OSError:
        return False


def sweep(parent: Path) -> None:
    """Removes groups that an ended process of edgeicl left empty."""
    for folder in parent.glob(f"{_PREFIX}[0-9]*-*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not Path(f"/proc/{owner}").exists():
            with contextlib.suppress(OSError):
                folder.rmdir()


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
