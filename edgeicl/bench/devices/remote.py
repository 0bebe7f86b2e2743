"""A workbench behind a shell: on a board reached by ssh, on a phone reached by adb.

Everything of ours there lies in one folder of mode 700, whose name says which process here made it; folders of
processes that are gone are removed by the next run. Files are sent with their hashes verified there.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import shlex
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeicl.bench.devices.device import Limits, Workbench
from edgeicl.bench.devices.output import last_lines, parse_answer
from edgeicl.bench.devices.programs import ENVIRONMENT, program_files
from edgeicl.errors import BenchError, IntegrityError, Problem
from edgeicl.progress import track
from edgeicl.specs.byte_size import format_byte_size
from edgeicl.store import digest_of, file_sha256

log = logging.getLogger(__name__)

PREFIX = "edgeicl-"
STEP_TIMEOUT_S = 60.0
_HASHED_BYTES_PER_SECOND = 10e6  # the slowest board that is worth the wait
_SPARE_BYTES = 20_000_000
_UNPACK_TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Finished:
    """What a script left."""

    returncode: int
    stdout: str
    stderr: str


class RemoteShell(ABC):
    """Runs scripts of the POSIX shell there, and sends files."""

    name: str
    """As people call the device, for messages."""

    @abstractmethod
    def run(self, script: str, *, stdin: str = "", timeout_s: float = STEP_TIMEOUT_S) -> Finished:
        """What the script did; its words were quoted by whoever wrote it.

        Raises:
            BenchError: the device can't be reached, or the script took longer than `timeout_s`.
        """

    @abstractmethod
    def send(self, file: Path, there: str) -> None:
        """Copies a file to the path `there`, whose folder exists.

        Raises:
            BenchError: the link broke, or there is no room; says which.
        """

    @abstractmethod
    def close(self) -> None:
        """Ends the connection. Never raises."""


def memory_problems(limits: Limits) -> list[Problem]:
    """Of a limit of memory, which is held on this computer alone."""
    found = "a limit on another computer"
    return [Problem("--memory", found, "expected it with --on local")] * (limits.memory_bytes is not None)


class RemoteWorkbench(Workbench):
    """Our folder there. `python`: the command that runs a program, as words, with `environment`."""

    def __init__(
        self,
        shell: RemoteShell,
        *,
        parent: str,
        python: Sequence[str],
        environment: Mapping[str, str] | None = None,
        cores: Sequence[int] = (),
    ) -> None:
        """Makes the folder below `parent`, after removing those of processes that are gone.

        Raises:
            BenchError: it can't be made.
        """
        self.shell, self._python = shell, list(python)
        self._environment = {**ENVIRONMENT, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})}
        self._cores = tuple(cores)
        self._held: dict[str, str] = {}
        remove_stale(shell, parent)
        self.folder = f"{parent}/{own_name()}"
        made = shell.run(f"umask 077 && mkdir {shlex.quote(self.folder)}")
        if made.returncode != 0:
            raise BenchError(f"{shell.name}: no folder can be made there: {last_lines(made.stderr)}")
        self._programs_sent = False

    def place(self, files: Mapping[str, Path]) -> None:
        wanted = {name: (path, file_sha256(path)) for name, path in files.items()}
        missing = {name: path for name, (path, digest) in wanted.items() if self._held.get(name) != digest}
        if not missing:
            return
        self._require_room(sum(path.stat().st_size for path in missing.values()))
        folders = {str(Path(self.path(name)).parent) for name in missing}
        made = self.shell.run(f"mkdir -p {' '.join(map(shlex.quote, sorted(folders)))}")
        if made.returncode != 0:
            raise BenchError(f"{self.shell.name}: no folders can be made there: {last_lines(made.stderr)}")
        sizes = [path.stat().st_size for path in missing.values()]
        with track(f"sending to {self.shell.name}, kB", sum(sizes) // 1000) as advance:
            for (name, path), size in zip(missing.items(), sizes, strict=True):
                self.shell.send(path, self.path(name))
                advance(size // 1000)
        self._verify({name: wanted[name][1] for name in missing}, sum(sizes))
        self._held |= {name: wanted[name][1] for name in missing}

    def install(self, wheels: Sequence[Path]) -> None:
        """Puts wheels where programs find them, in our folder and nowhere else."""
        self.place({f"wheels/{path.name}": path for path in wheels})
        unpacked = [
            shlex.join([*self._python, "-m", "zipfile", "-e", f"wheels/{path.name}", "site"]) for path in wheels
        ]
        script = " && ".join([f"cd {shlex.quote(self.folder)}", "mkdir -p site", *unpacked, "rm -r wheels"])
        done = self.shell.run(script, timeout_s=_UNPACK_TIMEOUT_S)
        if done.returncode != 0:
            raise BenchError(f"{self.shell.name}: wheels can't be unpacked there: {last_lines(done.stderr)}")
        self._environment["PYTHONPATH"] = f"{self.folder}/site"

    def path(self, name: str) -> str:
        parts = name.split("/")
        if not name or name.startswith("/") or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"a file called {name!r}; expected a path within the workbench")
        return f"{self.folder}/{name}"

    def run(self, program: str, request: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        if not self._programs_sent:
            self.place(program_files())
            self._programs_sent = True
        words = [*self._pinned(), *self._python, f"{program}.py"]
        variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in self._environment.items())
        # The number of the process is kept, so that closing can end it if the link broke.
        script = f"cd {shlex.quote(self.folder)} && echo $$ > pid && exec env {variables} {shlex.join(words)}"
        done = self.shell.run(script, stdin=json.dumps(request), timeout_s=timeout_s)
        if done.returncode != 0:
            raise BenchError(
                f"the {program} on {self.shell.name} ended with exit code {done.returncode}"
                f"{killed(done.returncode)}:\n{last_lines(done.stderr)}"
            )
        return parse_answer(done.stdout, who=f"the {program} on {self.shell.name}")

    def close(self) -> None:
        try:
            done = self.shell.run(removal([self.folder]))
            left = done.returncode != 0
        except BenchError:
            left = True
        if left:
            log.warning("%s: %s could not be removed; the next run removes it", self.shell.name, self.folder)
        self.shell.close()

    def _pinned(self) -> list[str]:
        """The words that put a program on the chosen cores."""
        return ["taskset", "-c", ",".join(map(str, self._cores))] if self._cores else []

    def held_limits(self) -> list[str]:
        return [f"cores {','.join(map(str, self._cores))}, by taskset"] if self._cores else []

    def _require_room(self, needed_bytes: int) -> None:
        done = self.shell.run(f"df -Pk {shlex.quote(self.folder)} | tail -n 1")
        fields = done.stdout.split()
        if done.returncode != 0 or len(fields) < 4 or not fields[3].isdigit():
            return  # what doesn't fit is told when it is sent
        free = int(fields[3]) * 1000
        if free < needed_bytes + _SPARE_BYTES:
            raise BenchError(
                f"{self.shell.name}: {self.folder} has room for {format_byte_size(free)}; expected "
                f"{format_byte_size(needed_bytes)} and {format_byte_size(_SPARE_BYTES)} to spare",
                next_step="make room there",
            )

    def _verify(self, digests: Mapping[str, str], size_bytes: int) -> None:
        """IntegrityError unless every file there has the hash that it has here."""
        paths = [shlex.quote(self.path(name)) for name in digests]
        limit_s = STEP_TIMEOUT_S + size_bytes / _HASHED_BYTES_PER_SECOND
        done = self.shell.run(f"sha256sum {' '.join(paths)}", timeout_s=limit_s)
        lines = re.findall(r"^\\?([0-9a-f]{64}) [ *](.+)$", done.stdout, re.MULTILINE)
        found = {path.strip(): digest for digest, path in lines}
        wrong = [
            f"{name}: found SHA-256 {found.get(self.path(name), 'none')[:12]}, expected {digest[:12]}"
            for name, digest in digests.items()
            if found.get(self.path(name)) != digest
        ]
        if wrong:
            raise IntegrityError(
                f"{self.shell.name}: what arrived is not what was sent:\n  " + "\n  ".join(wrong),
                next_step="run it again; if it stays so, look at the device's storage and at the link",
            )


def own_name() -> str:
    """Of a folder of this process: computer and user, process, and something random."""
    return f"{PREFIX}{_computer()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def remove_stale(shell: RemoteShell, parent: str) -> None:
    """Removes folders below `parent` that processes of this computer made which are gone."""
    pattern = re.compile(rf"{PREFIX}{_computer()}-([0-9]+)-[0-9a-f]{{8}}")
    done = shell.run(f"ls -1 {shlex.quote(parent)}")
    stale = [
        line for line in done.stdout.split() if (found := pattern.fullmatch(line)) and not _alive(int(found[1]))
    ]
    if stale:
        log.info("%s: removing what an earlier run left: %s", shell.name, ", ".join(stale))
        shell.run(removal([f"{parent}/{name}" for name in stale]))


def removal(folders: Sequence[str]) -> str:
    """A script that ends the program which still runs in any of the folders, and removes them.

    It fails if one stays. A program is ended where it is still in its folder, as far as the system tells: its
    number may be another's by now.
    """
    return f"""
for folder in {shlex.join(folders)}; do
  if [ -f "$folder/pid" ]; then
    number=$(cat "$folder/pid")
    at=$(readlink "/proc/$number/cwd" 2>/dev/null)
    if [ ! -d /proc/self ] || [ "$at" = "$(cd "$folder" && pwd -P)" ]; then kill "$number" 2>/dev/null; fi
  fi
  rm -rf "$folder"
done
for folder in {shlex.join(folders)}; do [ ! -e "$folder" ] || exit 1; done
"""


def killed(returncode: int) -> str:
    """What a shell's exit code above 128 says, in words."""
    return {137: " (killed: out of memory?)", 139: " (crashed)"}.get(returncode, "")


def _computer() -> str:
    """Of processes whose numbers mean the same: two containers may have one address, and each a process 1."""
    numbers = Path("/proc/self/ns/pid")
    return digest_of(
        [
            uuid.getnode(),
            platform.node(),
            str(numbers.readlink()) if numbers.is_symlink() else "",
            os.getuid() if hasattr(os, "getuid") else 0,
        ]
    )[:8]


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # somebody else's, so it is there
    return True
