"""What this installation has and lacks, for `edgeicl doctor`: versions alone, nothing heavy is imported."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from edgeicl.bench.devices.qemu_program import OLDEST, find_qemu
from edgeicl.bench.devices.sysroot import NAMED_BY, find_sysroot
from edgeicl.errors import BenchError
from edgeicl.specs.byte_size import format_byte_size
from edgeicl.specs.spec import Spec
from edgeicl.store import cache_root
from edgeicl.usable_cores import usable_cores

_BUILD = (
    "torch",
    "transformers",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "safetensors",
    "tokenizers",
    "peft",
    "datasets",
)
_BESIDE = {
    "onnxruntime-genai": "greedy tokens are not checked against it",
    "bitsandbytes": "teachers can't be loaded in 8 or 4 bits",
    "onnxruntime-gpu": 'nothing runs on CUDA; pip install "edgeicl[cuda]"',
    "optimum-onnx": 'students of other architectures are refused; pip install "edgeicl[export]"',
}
_PROGRAMS = {
    "ssh": "for --on ssh:HOST: install OpenSSH's client",
    "adb": "for --on adb: install Android's platform tools",
}


class Finding(Spec):
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "missing", "absent"] = Field(
        description="missing: a build needs it; absent: something else does."
    )
    found: str
    next_step: str = ""


def findings() -> list[Finding]:
    """All of it, in the order in which it is told."""
    return [*_computer(), *_libraries(), *_programs(), *arm_findings()]


def arm_findings() -> list[Finding]:
    """What emulated ARM cores need."""
    found = []
    qemu = find_qemu()
    oldest = ".".join(map(str, OLDEST))
    if qemu is None:
        step = "`edgeicl doctor --arm` brings it"
        found.append(
            Finding(name="qemu-aarch64", state="absent", found=f"none from {oldest} on", next_step=step)
        )
    else:
        found.append(Finding(name="qemu-aarch64", state="ok", found=f"{qemu.version}, {qemu.path}"))
    try:
        sysroot = find_sysroot()
        if sysroot is None:
            step = f"`edgeicl doctor --arm` builds it, or set {NAMED_BY}"
            found.append(Finding(name="aarch64 system", state="absent", found="none", next_step=step))
        else:
            versions = sysroot.versions
            named = ", ".join(
                f"{name} {versions[name]}" for name in ("onnxruntime", "numpy") if name in versions
            )
            told = f"{sysroot.python.name}{f', {named}' if named else ''}, {sysroot.folder}"
            found.append(Finding(name="aarch64 system", state="ok", found=told))
    except BenchError as error:
        found.append(Finding(name="aarch64 system", state="absent", found=str(error.args[0])))
    return found


def _computer() -> Iterator[Finding]:
    cores = len(usable_cores())
    yield Finding(name="computer", state="ok", found=f"{platform.system()} {platform.machine()}, {cores} cores")
    yield Finding(name="python", state="ok", found=platform.python_version())
    root = cache_root()
    at = next(folder for folder in (root, *root.parents) if folder.exists())
    free = format_byte_size(shutil.disk_usage(at).free)
    if os.access(at, os.W_OK):
        yield Finding(name="cache", state="ok", found=f"{root}, {free} free")
    else:
        step = "set EDGEICL_CACHE_DIR to a folder of your own"
        yield Finding(name="cache", state="missing", found=f"{root} can't be written", next_step=step)


def _libraries() -> Iterator[Finding]:
    for name in _BUILD:
        version = _version(name)
        if version is None and name == "onnxruntime" and _version("onnxruntime-gpu"):
            version = f"{_version('onnxruntime-gpu')} (onnxruntime-gpu)"
        if version is None:
            step = f"pip install {name}"
            yield Finding(name=name, state="missing", found="not installed", next_step=step)
        else:
            yield Finding(name=name, state="ok", found=version)
    for name, why in _BESIDE.items():
        version = _version(name)
        state: Literal["ok", "absent"] = "ok" if version else "absent"
        yield Finding(
            name=name, state=state, found=version or "not installed", next_step="" if version else why
        )


def _programs() -> Iterator[Finding]:
    for name, why in _PROGRAMS.items():
        path = shutil.which(name)
        state: Literal["ok", "absent"] = "ok" if path else "absent"
        yield Finding(name=name, state=state, found=path or "not on PATH", next_step="" if path else why)
    gpu = sorted(Path("/dev").glob("nvidia[0-9]*"))
    yield Finding(name="NVIDIA GPU", state="ok" if gpu else "absent", found=f"{len(gpu)}" if gpu else "none")


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
