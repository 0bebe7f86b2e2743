"""What a device says of itself, read where the artifact runs: what it is, and the state it is in.

Standard library alone: this file runs on devices beside the runner. Everything unknown is null or empty.
"""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

CPU_FOLDER = Path("/sys/devices/system/cpu")
THERMAL_FOLDER = Path("/sys/class/thermal")
POWER_FOLDER = Path("/sys/class/power_supply")
_HOTTEST_SENSIBLE_C = 150.0
_HWCAP, _HWCAP2 = 16, 26
# Word and bit: include/uapi/asm/hwcap.h of Linux on arm64.
_ARM_FEATURES = {
    "asimd": (0, 1), "fp16": (0, 10), "dotprod": (0, 20), "sve": (0, 22), "sve2": (1, 1), "i8mm": (1, 13),
    "bf16": (1, 14), "sme": (1, 23),
}  # fmt: skip
_X86_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "avx512_bf16")


def device_facts() -> dict[str, Any]:
    """What doesn't change while a measurement runs."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "processor": processor(),
        "soc": soc(),
        "model": model(),
        "features": instruction_features(),
        "logical_cores": usable_cores(),
        "affinity": affinity(),
        "memory_bytes": memory_bytes(),
        "max_mhz": [_mhz(core, "cpuinfo_max_freq") for core in affinity()],
    }


def device_state() -> dict[str, Any]:
    """What does: clock, governor, temperatures, battery, load."""
    cores = affinity()
    try:
        load = os.getloadavg()[0]
    except OSError:
        load = None
    return {
        "governors": sorted({found for core in cores if (found := _frequency_file(core, "scaling_governor"))}),
        "current_mhz": [_mhz(core, "scaling_cur_freq") for core in cores],
        "limit_mhz": [_mhz(core, "scaling_max_freq") for core in cores],
        "temperatures_c": temperatures_c(),
        "battery_percent": _number(_first(POWER_FOLDER.glob("*/capacity"))),
        "load_average": load,
        "throttle_events": throttle_events(),
    }


def processor() -> str:
    """What the processor calls itself."""
    info = _text(Path("/proc/cpuinfo")) or ""
    for key in ("model name", "Model", "Hardware"):
        for line in info.splitlines():
            if line.split(":")[0].strip() == key:
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def soc() -> str | None:
    """The chip: what Android's properties, the device tree or the kernel call it."""
    for name in ("ro.soc.model", "ro.board.platform"):
        if found := _android_property(name):
            maker = _android_property("ro.soc.manufacturer") if name == "ro.soc.model" else None
            return f"{maker} {found}" if maker else found
    tree = _text(Path("/proc/device-tree/compatible"))
    if tree:
        return tree.strip("\0").split("\0")[-1]
    machine = _text(Path("/sys/devices/soc0/machine"))
    return machine.strip() if machine else None


def model() -> str | None:
    """The device as people call it."""
    found = _android_property("ro.product.model") or _text(Path("/proc/device-tree/model"))
    return found.strip("\0 \n") if found else None


def instruction_features() -> list[str]:
    """What kernels choose by: of ARM's hardware capabilities, or of x86's flags."""
    if platform.machine() in ("aarch64", "arm64"):
        words = _auxiliary_values(_HWCAP, _HWCAP2)
        return [name for name, (word, bit) in _ARM_FEATURES.items() if words[word] >> bit & 1]
    for line in (_text(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith("flags"):
            flags = line.split()
            return [name for name in _X86_FEATURES if name in flags]
    return []


def _auxiliary_values(*kinds: int) -> list[int]:
    """From the vector that Linux hands every process; zeros elsewhere."""
    try:
        of_kind = ctypes.CDLL(None).getauxval
    except (AttributeError, OSError):
        return [0 for _ in kinds]
    of_kind.restype, of_kind.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
    return [int(of_kind(kind)) for kind in kinds]


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    return len(affinity()) or os.cpu_count() or 1


def affinity() -> list[int]:
    """Those cores by number; empty where the system doesn't say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def memory_bytes() -> int | None:
    """Memory of the whole device."""
    for line in (_text(Path("/proc/meminfo")) or "").splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def temperatures_c() -> dict[str, float]:
    """Sensor -> degrees; the kernel gives thousandths, some drivers whole degrees, broken ones nonsense."""
    found = {}
    for zone in sorted(THERMAL_FOLDER.glob("thermal_zone*")):
        raw, name = _number(zone / "temp"), (_text(zone / "type") or zone.name).strip()
        if raw is None:
            continue
        degrees = raw / 1000 if abs(raw) > _HOTTEST_SENSIBLE_C else raw
        if 0 < degrees < _HOTTEST_SENSIBLE_C:
            key = name if name not in found else f"{name} ({zone.name})"
            found[key] = round(degrees, 1)
    return found


def hottest_c() -> float | None:
    """The highest of the temperatures; None without a sensor."""
    return max(temperatures_c().values(), default=None)


def throttle_events() -> int | None:
    """How often the cores of this process were slowed by heat since the system started, where it counts."""
    counts = [
        _number(CPU_FOLDER / f"cpu{core}" / "thermal_throttle" / "core_throttle_count") for core in affinity()
    ]
    known = [count for count in counts if count is not None]
    return int(sum(known)) if known else None


def _frequency_file(core: int, name: str) -> str | None:
    found = _text(CPU_FOLDER / f"cpu{core}" / "cpufreq" / name)
    return found.strip() if found else None


def _mhz(core: int, name: str) -> float | None:
    found = _frequency_file(core, name)
    return int(found) / 1000 if found and found.isdigit() else None


def _android_property(name: str) -> str | None:
    getprop = Path("/system/bin/getprop")
    if not getprop.exists():
        return None
    try:
        done = subprocess.run([str(getprop), name], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _text(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def _number(path: Path | None) -> float | None:
    text = _text(path) if path else None
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _first(paths: Any) -> Path | None:
    return next(iter(sorted(paths)), None)
