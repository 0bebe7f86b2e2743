"""This computer: files stay where they are, and every program is a process of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeicl.bench.devices.device import Device, Workbench
from edgeicl.bench.devices.output import last_lines, parse_answer
from edgeicl.bench.devices.programs import ENVIRONMENT, PROGRAMS
from edgeicl.errors import BenchError
from edgeicl.module_process import run_module


@dataclass(frozen=True)
class LocalDevice(Device):
    """This computer, all of it."""

    def open(self) -> LocalWorkbench:
        return LocalWorkbench()


class LocalWorkbench(Workbench):
    """Nothing is copied: a placed file's path is its own."""

    def __init__(self) -> None:
        self._files: dict[str, Path] = {}

    def place(self, files: Mapping[str, Path]) -> None:
        self._files |= files

    def path(self, name: str) -> str:
        return str(self._files[name].resolve())

    def run(self, program: str, request: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        try:
            finished = run_module(PROGRAMS[program], request, timeout_s=timeout_s, environment=ENVIRONMENT)
        except subprocess.TimeoutExpired as error:
            raise BenchError(
                f"the {program} did not finish within {timeout_s:.0f} s",
                next_step="ask for fewer repetitions or tokens",
            ) from error
        if finished.returncode != 0:
            raise BenchError(
                f"the {program} ended with exit code {finished.returncode}:\n{last_lines(finished.stderr)}"
            )
        return parse_answer(finished.stdout, who=f"the {program}")

    def close(self) -> None:
        self._files.clear()


THIS_COMPUTER = LocalDevice("local")
