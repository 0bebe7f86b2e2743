"""`adb` and `adb:SERIAL`: Android phones, with a bundle that needs no app, on the big cores.

A bundle with its own Python lies in our folder on the phone for the length of a run. Heat, battery and the mode
of fixed performance are read and set by the phone's own tools.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeicl.bench.devices.adb_shell import AdbShell, choose_phone, find_adb
from edgeicl.bench.devices.bundle import build_bundle, command, environment
from edgeicl.bench.devices.device import Device
from edgeicl.bench.devices.output import last_lines
from edgeicl.bench.devices.remote import RemoteWorkbench, memory_problems
from edgeicl.bench.devices.sysroot import require_sysroot
from edgeicl.errors import BenchError, Problem, SpecError
from edgeicl.specs.byte_size import format_byte_size

log = logging.getLogger(__name__)

PARENT = "/data/local/tmp"
"""The one folder of a phone from which its shell may run programs."""
_BUNDLE = "bundle.tar.gz"
_UNPACK_TIMEOUT_S = 300.0
_FIXED = "cmd power set-fixed-performance-mode-enabled"
_THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
_CURRENT = "Current temperatures from HAL:"
_WARM = 2  # `moderate`: from there on phones slow down
_SPEEDS = """
for cpu in /sys/devices/system/cpu/cpu[0-9]*; do
  number=${cpu##*cpu}
  speed=$(cat $cpu/cpufreq/cpuinfo_max_freq 2>/dev/null || cat $cpu/cpu_capacity 2>/dev/null || echo 0)
  echo "$number $speed"
done
"""


@dataclass(frozen=True)
class AdbDevice(Device):
    """A phone that adb reaches."""

    def __post_init__(self) -> None:
        problems = memory_problems(self.limits)
        serial = self.address.partition(":")[2]
        if serial.startswith("-") or (":" in self.address and not serial):
            problems.append(Problem("--on", f"found {self.address}", "expected adb or adb:SERIAL"))
        if problems:
            raise SpecError("device", problems)

    def open(self) -> AdbWorkbench:
        adb = find_adb()
        phone = choose_phone(adb, self.address.partition(":")[2] or None)
        bundle = build_bundle(require_sysroot())
        shell = AdbShell(adb, phone)
        machine = shell.run("uname -m").stdout.strip()
        if machine not in ("aarch64", "arm64"):
            raise BenchError(
                f"{shell.name} has a processor of {machine or 'an unknown kind'}; expected aarch64",
                next_step="measure on a 64-bit ARM phone",
            )
        bench = AdbWorkbench(shell, self.limits.cores)
        try:
            log.info("sending %s to %s", format_byte_size(bundle.stat().st_size), shell.name)
            bench.place({_BUNDLE: bundle})
            bench.unpack()
            bench.prepare()
        except BaseException:
            bench.close()
            raise
        return bench


class AdbWorkbench(RemoteWorkbench):
    """Our folder on the phone, its big cores, and its state."""

    shell: AdbShell

    def __init__(self, shell: AdbShell, cores: Sequence[int] | None) -> None:
        self._asked, self._speeds = cores, core_speeds(shell.run(_SPEEDS).stdout)
        super().__init__(shell, parent=PARENT, python=command(), environment=environment(), cores=cores or ())
        self._fixed = False

    def prepare(self) -> None:
        """Fixed performance where it is to be had, and a look at what would slow the phone down."""
        self._fixed = True  # until it is known: a link that breaks now may have switched it on
        self._fixed = self.shell.run(f"{_FIXED} true").returncode == 0
        found, name = self.state(), self.shell.name
        if found.get("thermal_status") in _THERMAL[_WARM:]:
            log.warning("%s is warm already (%s): let it cool down first", name, found["thermal_status"])
        if found.get("power_saver"):
            log.warning("%s saves power: its cores are slowed; turn that off", name)

    def unpack(self) -> None:
        """The bundle, beside the programs."""
        done = self.shell.run(
            f"cd {self.folder} && tar xzf {_BUNDLE} && rm {_BUNDLE}", timeout_s=_UNPACK_TIMEOUT_S
        )
        if done.returncode != 0:
            raise BenchError(
                f"{self.shell.name}: the bundle can't be unpacked there: {last_lines(done.stderr)}",
                next_step="make room on its storage",
            )

    def run(self, program: str, request: Any, *, timeout_s: float) -> dict[str, Any]:
        if not self._asked:  # what asks for no threads wants to know of all cores
            self._cores = tuple(big_cores(self._speeds, request.get("threads") or 0))
        return super().run(program, request, timeout_s=timeout_s)

    def _pinned(self) -> list[str]:
        """Toybox's taskset takes a mask in hexadecimal digits."""
        return ["taskset", f"{sum(1 << core for core in self._cores):x}"] if self._cores else []

    def held_limits(self) -> list[str]:
        mode = f"fixed performance mode: {'on' if self._fixed else 'not to be had'}"
        if not self._cores:
            return ["cores as the system chooses: it tells no speeds", mode]
        why = "as asked" if self._asked else "its fastest"
        return [f"cores {','.join(map(str, self._cores))}, {why}, by taskset", mode]

    def state(self) -> dict[str, Any]:
        battery = self.shell.run("dumpsys battery").stdout
        thermal = self.shell.run("dumpsys thermalservice").stdout
        saver = self.shell.run("settings get global low_power").stdout.strip()
        return (
            battery_state(battery) | thermal_state(thermal) | ({"power_saver": saver == "1"} if saver else {})
        )

    def close(self) -> None:
        if self._fixed:
            try:
                ended = self.shell.run(f"{_FIXED} false").returncode == 0
            except BenchError:
                ended = False
            if not ended:
                log.warning(
                    "%s: its fixed performance mode could not be ended; it ends when the phone restarts, "
                    "or with `adb shell %s false`",
                    self.shell.name,
                    _FIXED,
                )
        super().close()


def core_speeds(text: str) -> dict[int, int]:
    """Core -> its highest frequency or capacity, from lines `NUMBER SPEED`."""
    lines = [line.split() for line in text.splitlines()]
    return {int(line[0]): int(line[1]) for line in lines if len(line) == 2 and all(map(str.isdigit, line))}


def big_cores(speeds: dict[int, int], threads: int) -> list[int]:
    """The fastest cores, as many as there are threads; of equals those with the highest numbers.

    None where no core's speed is known, so that nothing is called fastest that isn't.
    """
    if not any(speeds.values()):
        return []
    return sorted(sorted(speeds, key=lambda core: (-speeds[core], -core))[:threads])


def battery_state(text: str) -> dict[str, Any]:
    """From `dumpsys battery`: percent, degrees, and what charges it. Some vendors indent, some add sections."""
    found = dict(re.findall(r"^\s*([A-Za-z ]+):\s*(\S+)\s*$", text, re.MULTILINE))
    state: dict[str, Any] = {}
    if found.get("level", "").isdigit():
        state["battery_percent"] = float(found["level"])
    if found.get("temperature", "").lstrip("-").isdigit():
        state["battery_c"] = int(found["temperature"]) / 10
    powered = [name for name in ("AC", "USB", "Wireless", "Dock") if found.get(f"{name} powered") == "true"]
    if any(name.endswith("powered") for name in found):
        state["charged_by"] = ", ".join(powered) or "nothing"
    return state


def thermal_state(text: str) -> dict[str, Any]:
    """From `dumpsys thermalservice`: status, and the hottest reading of skin and cores.

    `Thermal Status: 1` everywhere; readings as `Temperature{mValue=31.2, mType=3, mName=skin, ...}` since
    Android 10 (types 0: CPU, 3: skin). Current ones count; those that the system kept where it lists no others.
    """
    state: dict[str, Any] = {}
    if status := re.search(r"Thermal Status:\s*([0-6])", text):
        state["thermal_status"] = _THERMAL[int(status[1])]
    kept, _, rest = text.partition(_CURRENT)
    current = re.split(r"^\S.*:$", rest, maxsplit=1, flags=re.MULTILINE)[0]  # up to the next heading
    for kind, name in (("0", "cpu_c"), ("3", "skin_c")):
        if values := _readings(current, kind) or _readings(kept, kind):
            state[name] = max(values)
    return state


def _readings(text: str, kind: str) -> list[float]:
    """Believable degrees of one kind of sensor."""
    found = re.findall(r"Temperature\{mValue=(-?[0-9.]+),\s*mType=([0-9]+)", text)
    return [float(value) for value, of in found if of == kind and 0 < float(value) < 150]
