"""Wheels of onnxruntime and numpy for another computer's Python, fetched by pip with its own settings."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgeicl.bench.devices.output import last_lines
from edgeicl.errors import BenchError
from edgeicl.kept import kept

_TIMEOUT_S = 900
_OLDEST_GLIBC_MINOR = 17  # manylinux2014


@dataclass(frozen=True)
class PythonThere:
    """The Python that wheels are for: `3.11`, `aarch64`, and the minor version of its glibc 2."""

    version: str
    machine: str
    glibc_minor: int

    @property
    def platforms(self) -> list[str]:
        """Tags of wheels that it takes."""
        minors = range(self.glibc_minor, _OLDEST_GLIBC_MINOR - 1, -1)
        return [f"manylinux_2_{minor}_{self.machine}" for minor in minors] + [f"manylinux2014_{self.machine}"]


def requirements_like_here() -> list[str]:
    """This computer's onnxruntime, so that the same release runs there, and any numpy that it works with.

    Raises:
        BenchError: there is none here.
    """
    for name in ("onnxruntime", "onnxruntime-gpu"):
        with suppress(PackageNotFoundError):
            return [f"onnxruntime=={version(name)}", "numpy"]
    raise BenchError("onnxruntime is not installed here", next_step="pip install onnxruntime")


def fetch_wheels(requirements: Sequence[str], python: PythonThere) -> list[Path]:
    """One wheel for each requirement, and nothing that it depends on: those of the cache, else downloaded.

    Raises:
        BenchError: pip is missing, or has no such wheel.
    """

    def make(folder: Path) -> dict[str, list[str]]:
        _download(requirements, python, folder)
        return {"requirements": list(requirements)}

    about = [*requirements, python.version, python.machine, python.glibc_minor]
    return sorted(kept("wheels", about, make).glob("*.whl"))


def _download(requirements: Sequence[str], python: PythonThere, into: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", "--implementation", "cp", "--python-version", python.version]
    for name in python.platforms:
        command += ["--platform", name]
    try:
        done = subprocess.run(
            [*command, "--dest", str(into), *requirements],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"pip took more than {_TIMEOUT_S} s to fetch {', '.join(requirements)}") from error
    if done.returncode != 0:
        raise BenchError(
            f"pip has no wheel of {', '.join(requirements)} for Python {python.version} on {python.machine}:\n"
            f"{last_lines(done.stderr)}",
            next_step="see that pip reaches its index, or use another version of Python there",
        )


def unpack_wheels(wheels: Sequence[Path], into: Path) -> None:
    """Unpacks wheels side by side, as a folder for PYTHONPATH."""
    for path in wheels:
        with zipfile.ZipFile(path) as archive:
            archive.extractall(into)
