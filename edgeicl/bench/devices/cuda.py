"""`cuda` and `cuda:NUMBER`: a GPU of this computer, by onnxruntime's CUDA provider and no other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeicl.bench.devices.device import Device, Provider
from edgeicl.bench.devices.local import LocalWorkbench
from edgeicl.errors import BenchError, Problem, SpecError

CUDA = "CUDAExecutionProvider"


@dataclass(frozen=True)
class CudaDevice(Device):
    """One GPU. SpecError for limits: they are the processor's, and the GPU does the work."""

    provider: Provider = field(default="cuda", init=False)
    here: bool = field(default=True, init=False)

    def __post_init__(self) -> None:
        _, colon, number = self.address.partition(":")
        problems = []
        if colon and not (number.isascii() and number.isdigit()):
            problems.append(Problem("--on", self.address, "expected cuda, or cuda:NUMBER such as cuda:0"))
        if self.limits.any:
            problems.append(Problem("--cores, --memory", "limits of a GPU", "expected none"))
        if problems:
            raise SpecError("device", problems)

    @property
    def number(self) -> int:
        return int(self.address.partition(":")[2] or 0)

    def open(self) -> CudaWorkbench:
        if (reason := why_no_cuda()) is not None:
            raise BenchError(
                f"{self.address}: {reason}",
                next_step='on a computer with an NVIDIA GPU: pip install "edgeicl[cuda]"',
            )
        return CudaWorkbench()


class CudaWorkbench(LocalWorkbench):
    """Runs the one program that knows GPUs. BenchError for others, which would use the processor unasked."""

    def run(self, program: str, request: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        if program != "runner":
            raise BenchError(
                f"{program} runs on processors alone", next_step="use --on local; bench takes cuda"
            )
        return super().run(program, request, timeout_s=timeout_s)


def why_no_cuda() -> str | None:
    """Why onnxruntime can't run graphs on a GPU here; None where it has the provider for it."""
    import onnxruntime as ort

    if CUDA in ort.get_available_providers():
        return None
    return f"onnxruntime {ort.__version__} has no {CUDA}; it has {', '.join(ort.get_available_providers())}"
