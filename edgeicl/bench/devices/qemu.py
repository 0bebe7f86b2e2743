"""`qemu:CORE`: the official aarch64 onnxruntime on an emulated core of that model.

Real ARM kernels with and without dot products and i8mm, so what they compute can be checked; what time they
take means nothing, which is why such a device has no word for its times.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeicl.bench.devices.device import Device, Workbench
from edgeicl.bench.devices.output import last_lines, parse_answer
from edgeicl.bench.devices.programs import ENVIRONMENT, program_files
from edgeicl.bench.devices.qemu_program import Qemu, core_models, require_qemu
from edgeicl.bench.devices.sysroot import Sysroot, require_sysroot
from edgeicl.errors import BenchError, Problem, SpecError
from edgeicl.specs.measurement import Fidelity

CORES = {
    "cortex-a72": "without dot products (Raspberry Pi 4)",
    "cortex-a76": "with dot products (Raspberry Pi 5, phones from 2019 on)",
    "max": "with i8mm, bf16 and SVE (phones from 2022 on have the first two)",
}
"""Those that stand for a tier of instructions; any that qemu knows may be named."""
_SLOWER = 20
"""How many times as long as here a program may take."""


@dataclass(frozen=True)
class QemuDevice(Device):
    """An emulated core. SpecError for limits: nothing is measured there."""

    fidelity: Fidelity | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        problems = []
        if not self.core:
            problems.append(
                Problem("--on", self.address, f"expected qemu:CORE, such as qemu:{next(iter(CORES))}")
            )
        if self.limits.any:
            problems.append(Problem("--cores, --memory", "limits of an emulated core", "expected none"))
        if problems:
            raise SpecError("device", problems)

    @property
    def core(self) -> str:
        return self.address.partition(":")[2]

    def open(self) -> QemuWorkbench:
        qemu, sysroot = require_qemu(), require_sysroot()
        known = core_models(qemu)
        if self.core not in known:
            raise BenchError(
                f"qemu {qemu.version} knows no core {self.core!r}",
                next_step=f"name one of {', '.join(CORES)}, or another that `{qemu.path.name} -cpu help` lists",
            )
        return QemuWorkbench(qemu, sysroot, self.core)


class QemuWorkbench(Workbench):
    """Placed files stay where they are; programs lie in a folder of their own, away from our Python."""

    def __init__(self, qemu: Qemu, sysroot: Sysroot, core: str) -> None:
        self._files: dict[str, Path] = {}
        self._programs = Path(tempfile.mkdtemp(prefix="edgeicl-qemu-"))
        for name, path in program_files().items():
            shutil.copyfile(path, self._programs / name)
        self._command = [str(qemu.path), "-L", str(sysroot.folder), "-cpu", core, str(sysroot.python), "-s"]
        self._environment = {
            "PYTHONPATH": str(sysroot.site),
            "PYTHONDONTWRITEBYTECODE": "1",
            **ENVIRONMENT,
            "HOME": str(self._programs),
            "PATH": os.defpath,
        }

    def place(self, files: Mapping[str, Path]) -> None:
        self._files |= files

    def path(self, name: str) -> str:
        return str(self._files[name].resolve())

    def run(self, program: str, request: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        try:
            done = subprocess.run(
                [*self._command, str(self._programs / f"{program}.py")],
                input=json.dumps(request),
                capture_output=True,
                text=True,
                env=self._environment,
                cwd=self._programs,
                timeout=timeout_s * _SLOWER,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"the {program} under qemu did not finish within {error.timeout:.0f} s") from error
        if done.returncode != 0:
            raise BenchError(
                f"the {program} under qemu ended with exit code {done.returncode}:\n{last_lines(done.stderr)}"
            )
        return parse_answer(done.stdout, who=f"the {program} under qemu")

    def close(self) -> None:
        shutil.rmtree(self._programs, ignore_errors=True)
        self._files.clear()
