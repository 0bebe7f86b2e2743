"""An aarch64 userland with Python, numpy and onnxruntime: what qemu runs, and what a phone's bundle is made of.

Made once, in the cache, of Debian's arm64 packages and the official aarch64 wheels.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgeicl.bench.devices.debian_packages import DebianPackages, release
from edgeicl.bench.devices.wheels import PythonThere, fetch_wheels, requirements_like_here, unpack_wheels
from edgeicl.errors import BenchError
from edgeicl.kept import kept, kept_place, kept_record
from edgeicl.progress import track

FOLDER = "aarch64"
"""Folder of the cache below which they are made."""
NAMED_BY = "EDGEICL_AARCH64_SYSROOT"
"""Environment variable that names a ready-made one."""

_SITE = "opt/edgeicl"  # where the wheels lie in it
_PACKAGES = (
    "libc6", "libstdc++6", "libgcc-s1", "zlib1g", "libexpat1", "libffi8", "libssl3", "libbz2-1.0", "liblzma5",
)  # fmt: skip
_PYTHON = ("{python}-minimal", "lib{python}-minimal", "lib{python}-stdlib")


@dataclass(frozen=True)
class Sysroot:
    """A root folder of an aarch64 system."""

    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        found = sorted((self.folder / "usr/bin").glob("python3.[0-9]*"))
        if not found:
            raise BenchError(
                f"{self.folder} has no usr/bin/python3.N; expected the root of an aarch64 system",
                next_step="build one with `edgeicl doctor --arm`",
            )
        return found[-1]

    @property
    def site(self) -> Path:
        """Its numpy and onnxruntime, for PYTHONPATH."""
        return self.folder / _SITE

    @property
    def versions(self) -> dict[str, str]:
        """Package or wheel -> version, as recorded; empty for a ready-made one."""
        return dict(kept_record(self.folder).get("versions", {}))


def find_sysroot() -> Sysroot | None:
    """The ready-made one that the environment names, else the one in the cache, if it is there."""
    named = os.environ.get(NAMED_BY)
    if named:
        if not Path(named).is_dir():
            raise BenchError(f"{NAMED_BY} names {named}, which is no folder")
        return Sysroot(Path(named).resolve())
    made = kept_place(FOLDER, _about())
    return Sysroot(made) if made.is_dir() else None


def require_sysroot() -> Sysroot:
    """The same; BenchError where there is none."""
    found = find_sysroot()
    if found is None:
        raise BenchError(
            "there is no aarch64 system to run yet",
            next_step=f"build it with `edgeicl doctor --arm`, or name one with {NAMED_BY}",
        )
    return found


def build_sysroot() -> Sysroot:
    """Makes it in the cache, whole or not at all; returns at once where it is.

    Raises:
        BenchError: apt or pip can't fetch what it is made of.
    """

    def make(root: Path) -> dict[str, dict[str, str]]:
        with track("aarch64 system", 4) as advance:
            return {"versions": _fill(root, advance)}

    return Sysroot(kept(FOLDER, _about(), make))


def _about() -> list[str]:
    return ["aarch64", release(), *requirements_like_here()]


def _fill(root: Path, advance: Callable[[int], None]) -> dict[str, str]:
    """The packages, then the wheels; versions of both."""
    work = root / "work"
    apt = DebianPackages(work / "apt", "arm64")
    apt.update()
    advance(1)
    python = re.search(r"python3\.[0-9]+", apt.depends("python3-minimal"))
    if python is None:
        raise BenchError("apt knows no python3-minimal of arm64; expected one, from this computer's sources")
    unpacked = apt.unpack([*_PACKAGES, *(name.format(python=python[0]) for name in _PYTHON)], root)
    advance(1)
    versions = dict(entry.split("_", 1) for entry in unpacked)
    glibc = re.match(r"2\.([0-9]+)", versions["libc6"])
    there = PythonThere(python[0].removeprefix("python"), "aarch64", int(glibc[1]) if glibc else 28)
    wheels = fetch_wheels(requirements_like_here(), there)
    advance(1)
    unpack_wheels(wheels, root / _SITE)
    versions |= {name: number for name, number, *_ in (path.name.split("-") for path in wheels)}
    shutil.rmtree(work)
    advance(1)
    return versions
