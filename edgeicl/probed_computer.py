"""Whether a device can be measured for a target: a probe must run on what the target describes."""

from __future__ import annotations

from edgeicl.errors import Problem, SpecError
from edgeicl.specs.target import Target

# `instruction_features` that only one kind of processor has, by their first letters
_FEATURES = {"ARM": ("neon", "asimd", "dotprod", "fp16", "i8mm", "bf16", "sve"), "x86": ("avx", "sse")}
_MACHINES = {"x86_64": "x86", "amd64": "x86", "aarch64": "ARM", "arm64": "ARM"}


def check_probed(target: Target, machine: str) -> None:
    """SpecError for a target of another provider than the CPU, or of another kind of processor than `machine`."""
    problems = []
    if target.provider != "cpu":
        found = f"{target.provider}, and a probe measures CPUs"
        problems.append(Problem("--from: provider", found, "expected cpu"))
    here = _MACHINES.get(machine.lower())
    for kind, names in _FEATURES.items():
        foreign = [feature for feature in target.instruction_features if feature.startswith(names)]
        if foreign and here not in (None, kind):
            found = f"{', '.join(foreign)}, which {kind} processors have, and the device is {machine}"
            problems.append(Problem("--from: instruction_features", found, f"expected those of {here}"))
    if problems:
        raise SpecError(
            f"target {target.name}",
            problems,
            next_step="start from a target of the device's kind (--from host-cpu is one of x86)"
            + f", or probe the device that {target.name} describes (--on ssh:HOST, adb)"
            * (target.provider == "cpu"),
        )
