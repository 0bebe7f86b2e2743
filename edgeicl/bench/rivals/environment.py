"""Where a rival runs: a Python that has its libraries, given, made by edgeicl, or this one.

Never by a shell: pip runs as a module of the environment's own Python, with pip's own settings of index and
proxy.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeicl.bench.devices.output import last_lines
from edgeicl.bench.rivals.rival import RivalEnvironment
from edgeicl.errors import BenchError
from edgeicl.kept import kept, kept_place
from edgeicl.progress import track

FOLDER = "rival-python"
"""Folder of the cache below which they are made; `edgeicl cache` lists and clears it."""
_INSTALL_TIMEOUT_S = 3600


@dataclass(frozen=True)
class FoundPython:
    """An interpreter that can run a rival, and the versions of its libraries there."""

    path: Path
    versions: Mapping[str, str]


def find_python(environment: RivalEnvironment, *, given: Path | None, install: bool) -> FoundPython:
    """The Python for `environment`: `given`, else the one that edgeicl made, else this one.

    Args:
        install: Make an environment with pip where no Python has the libraries, if none is given.

    Raises:
        BenchError: no Python has the libraries, or they can't be installed; says what to do.
    """
    if given is not None:
        return _checked(given, environment)
    made = _made_python(environment)
    if made.is_file():
        return _checked(made, environment)
    try:
        return _checked(Path(sys.executable), environment)
    except BenchError:
        if not install:
            raise
    _install(environment)
    return _checked(made, environment)


def _made_python(environment: RivalEnvironment) -> Path:
    return kept_place(FOLDER, _about(environment)) / "bin" / "python"


def _about(environment: RivalEnvironment) -> list[object]:
    return [*environment.requirements, *sys.version_info[:2]]


def _checked(python: Path, environment: RivalEnvironment) -> FoundPython:
    """`python` with the versions that it has. BenchError unless all distributions are there."""
    names = [*environment.distributions, "numpy"]
    code = (
        "import importlib.metadata as m, json, platform, sys\n"
        "have = {d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}\n"
        "found = {n: have.get(n.lower()) for n in sys.argv[1:]}\n"
        "print(json.dumps(found | {'python': platform.python_version()}))"
    )
    try:
        finished = subprocess.run(
            [str(python), "-c", code, *names], capture_output=True, text=True, check=False, timeout=120
        )
        versions: dict[str, str | None] = json.loads(finished.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else "it doesn't answer as Python does"
        raise BenchError(
            f"{python} can't be run: {reason}",
            next_step=f"name a Python interpreter with --python {environment.name}=PATH",
        ) from error
    absent = [name for name in environment.distributions if versions[name] is None]
    if absent:
        raise BenchError(
            f"{', '.join(absent)} not installed beside {python}", next_step=how_to_install(environment)
        )
    return FoundPython(python, {name: version for name, version in versions.items() if version is not None})


def how_to_install(environment: RivalEnvironment) -> str:
    """Both ways to get the environment."""
    wanted = " ".join(f"'{requirement}'" for requirement in environment.requirements)
    return (
        f"add --install, or install {wanted} into an environment of their own ({environment.why_apart}) and "
        f"name its Python with --python {environment.name}=PATH"
    )


def _install(environment: RivalEnvironment) -> None:
    """Makes the environment in the cache, whole or not at all. BenchError with the end of pip's words."""

    def make(folder: Path) -> dict[str, str]:
        python = str(folder / "bin" / "python")
        steps = (
            [sys.executable, "-m", "venv", str(folder)],
            [python, "-m", "pip", "install", "--quiet", *environment.requirements],
        )
        with track(f"installing {environment.name}", len(steps)) as advance:
            for step in steps:
                _run(step, environment)
                advance(1)
        return {"environment": environment.name}

    kept(FOLDER, _about(environment), make)


def _run(command: list[str], environment: RivalEnvironment) -> None:
    try:
        finished = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_INSTALL_TIMEOUT_S
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"installing {environment.name} took more than {_INSTALL_TIMEOUT_S} s") from error
    if finished.returncode != 0:
        raise BenchError(
            f"{environment.name} could not be installed (exit code {finished.returncode}):\n"
            f"{last_lines(finished.stderr)}",
            next_step=how_to_install(environment).replace("add --install, or", "with a network,"),
        )
