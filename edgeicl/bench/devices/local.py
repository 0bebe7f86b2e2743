"""This computer: files stay where they are, and every program is a process of its own.

With limits of cores or memory it stands for a smaller one, so its times are called emulated.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeicl.bench.devices.device import Device, Limits, Workbench
from edgeicl.bench.devices.limited import CANNOT_LIMIT
from edgeicl.bench.devices.memory_group import GroupError, MemoryGroup, make_group
from edgeicl.bench.devices.output import last_lines, parse_answer
from edgeicl.bench.devices.programs import ENVIRONMENT, PROGRAMS
from edgeicl.errors import BenchError, Problem, SpecError
from edgeicl.module_process import run_module
from edgeicl.specs.byte_size import format_byte_size

_LIMITED = "edgeicl.bench.devices.limited"
_NO_MEMORY = ("bad_alloc", "MemoryError", "Cannot allocate memory", "Failed to allocate memory")
"""What Python, numpy and onnxruntime say where the system refuses memory to them."""


@dataclass(frozen=True)
class LocalDevice(Device):
    """This computer, all of it, or as much as its limits leave."""

    here: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        if ":" in self.address:
            raise SpecError("device", [Problem("--on", f"found {self.address}", "expected local")])
        if self.limits.any:
            object.__setattr__(self, "fidelity", "emulated")

    def open(self) -> LocalWorkbench:
        require_cores(self.limits)
        return LocalWorkbench(self.limits)


def require_cores(limits: Limits) -> None:
    """BenchError unless this process may use all cores that are asked for."""
    if limits.cores is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise BenchError("this system can't bind a process to cores", next_step="leave --cores out")
    usable = os.sched_getaffinity(0)
    if absent := sorted({*limits.cores} - usable):
        raise BenchError(
            f"this computer has no core {', '.join(map(str, absent))} for this process; it may use "
            f"{', '.join(map(str, sorted(usable)))}",
            next_step="ask for those with --cores",
        )


class LocalWorkbench(Workbench):
    """Nothing is copied: a placed file's path is its own. Each limit holds for every program that runs."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._files: dict[str, Path] = {}
        self._limits = limits or Limits()
        self._group: MemoryGroup | None = None
        self._held: list[str] = [f"like {self._limits.like}"] if self._limits.like else []
        if self._limits.cores:
            self._held.append(f"cores {', '.join(map(str, self._limits.cores))} (affinity)")
        if self._limits.memory_bytes:
            self._hold_memory(self._limits.memory_bytes)

    def _hold_memory(self, limit_bytes: int) -> None:
        told = format_byte_size(limit_bytes)
        try:
            self._group = make_group(limit_bytes)
            self._held.append(f"memory {told} ({self._group.name}; files cached before don't count)")
        except GroupError as error:
            if not hasattr(os, "sched_setaffinity"):  # not Linux, where RLIMIT_DATA counts less
                raise BenchError(f"memory can't be limited here: {error}") from error
            self._held.append(
                f"memory {told} (RLIMIT_DATA: private writable memory, touched or not; mapped files don't "
                f"count; no control group: {error})"
            )

    def place(self, files: Mapping[str, Path]) -> None:
        self._files |= files

    def path(self, name: str) -> str:
        return str(self._files[name].resolve())

    def run(self, program: str, request: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        kills = self._group.kills() if self._group else 0
        module, arguments = self._command(PROGRAMS[program])
        try:
            finished = run_module(
                module, request, timeout_s=timeout_s, environment=ENVIRONMENT, arguments=arguments
            )
        except subprocess.TimeoutExpired as error:
            raise BenchError(
                f"the {program} did not finish within {timeout_s:.0f} s",
                next_step="ask for fewer repetitions or tokens",
            ) from error
        if finished.returncode == CANNOT_LIMIT and arguments:
            raise BenchError(last_lines(finished.stderr), next_step="ask for other limits, or none")
        if finished.returncode != 0:
            self._tell_memory(finished, kills)
            raise BenchError(
                f"the {program} ended with exit code {finished.returncode}:\n{last_lines(finished.stderr)}"
            )
        return parse_answer(finished.stdout, who=f"the {program}")

    def _command(self, module: str) -> tuple[str, list[str]]:
        """What is run, and its arguments: the module itself, or what limits itself and becomes it."""
        if not self._limits.any:
            return module, []
        by_group = self._group is not None
        limits = {
            "cores": self._limits.cores,
            "group": str(self._group.joined_through) if self._group else None,
            "data_bytes": None if by_group else self._limits.memory_bytes,
        }
        return _LIMITED, [json.dumps(limits), module]

    def _tell_memory(self, finished: subprocess.CompletedProcess[str], kills_before: int) -> None:
        """BenchError if it was the limit of memory that ended the program."""
        if self._limits.memory_bytes is None:
            return
        told = f"needs more than {format_byte_size(self._limits.memory_bytes)}"
        next_step = "give it more with --memory, or compile for a smaller budget.resident_bytes"
        if self._group and finished.returncode == -signal.SIGKILL and self._group.kills() > kills_before:
            peak = self._group.peak_bytes()
            so_far = f"; peak so far {format_byte_size(peak)}" if peak else ""
            raise BenchError(f"{told}: killed by the memory limit{so_far}", next_step=next_step)
        if self._group is None and any(text in finished.stderr for text in _NO_MEMORY):
            raise BenchError(
                f"{told}: memory was refused by RLIMIT_DATA\n{last_lines(finished.stderr)}",
                next_step=next_step,
            )

    def held_limits(self) -> list[str]:
        return list(self._held)

    def close(self) -> None:
        self._files.clear()
        if self._group:
            self._group.remove()


THIS_COMPUTER = LocalDevice("local")
