"""The program that runs aarch64 processes on this computer: qemu's user mode, 10 or newer."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from edgeicl.bench.devices.debian_packages import DebianPackages, own_architecture, release
from edgeicl.errors import BenchError
from edgeicl.kept import kept, kept_place

PROGRAM = "qemu-aarch64"
OLDEST = (10, 0)
"""Of qemu: 7.2 crashes in onnxruntime."""
_BACKPORTED = ("bookworm",)  # releases whose own qemu is older
_FOLDER = "qemu"
_TIMEOUT_S = 30


@dataclass(frozen=True)
class Qemu:
    """The program and its version."""

    path: Path
    version: str


def find_qemu() -> Qemu | None:
    """The one on PATH, else the one in the cache; None where neither is new enough."""
    named = shutil.which(PROGRAM)
    for path in (Path(named) if named else None, kept_place(_FOLDER, _about()) / PROGRAM):
        if path is not None and path.is_file() and (version := version_of(path)) >= OLDEST:
            return Qemu(path, ".".join(map(str, version)))
    return None


def require_qemu() -> Qemu:
    """The same; BenchError where there is none."""
    found = find_qemu()
    if found is None:
        raise BenchError(
            f"no {PROGRAM} of version {OLDEST[0]} or newer on PATH (7.2 crashes in onnxruntime)",
            next_step="bring it with `edgeicl doctor --arm`, or install qemu-user 10 (on Debian 12 a backport)",
        )
    return found


def bring_qemu() -> Qemu:
    """Fetches Debian's package into the cache where there is none; nothing is installed.

    Raises:
        BenchError: apt can't fetch one that is new enough.
    """
    found = find_qemu()
    if found is not None:
        return found

    def make(folder: Path) -> dict[str, list[str]]:
        suffix = "-backports" if release() in _BACKPORTED else ""
        work = folder / "work"
        apt = DebianPackages(work / "apt", own_architecture(), suffix)
        apt.update()
        packages = apt.unpack(["qemu-user"], work / "root")
        (work / "root" / "usr" / "bin" / PROGRAM).replace(folder / PROGRAM)
        shutil.rmtree(work)
        return {"packages": packages}

    kept(_FOLDER, _about(), make)
    return require_qemu()


def version_of(path: Path) -> tuple[int, int]:
    """Major and minor version of the program; zeros where it doesn't say."""
    try:
        done = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0, 0
    found = re.search(r"version ([0-9]+)\.([0-9]+)", done.stdout)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def core_models(qemu: Qemu) -> list[str]:
    """Names of the processor cores that it knows."""
    done = subprocess.run(
        [str(qemu.path), "-cpu", "help"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
    )
    return [line.split()[0] for line in done.stdout.splitlines() if line.startswith(" ") and line.strip()]


def _about() -> list[str]:
    return ["qemu", release()]
