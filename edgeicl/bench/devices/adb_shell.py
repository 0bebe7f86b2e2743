"""The shell of an Android phone, by the system's adb."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

from edgeicl.bench.devices.output import last_lines
from edgeicl.bench.devices.remote import STEP_TIMEOUT_S, Finished, RemoteShell
from edgeicl.errors import BenchError

_SLOWEST_BYTES_PER_SECOND = 200e3  # USB 1.1
_SDK_VARIABLES = ("ANDROID_HOME", "ANDROID_SDK_ROOT")
_STATES = {
    "unauthorized": "unlock it and allow USB debugging from this computer",
    "offline": "unplug it and plug it in again, or restart its USB debugging",
    "no permissions": "let this user reach USB devices (udev rules of the platform tools)",
    "recovery": "start it normally",
    "sideload": "start it normally",
}


def find_adb() -> str:
    """The program; BenchError where there is none."""
    homes = [
        Path(os.environ[name]) / "platform-tools" / "adb" for name in _SDK_VARIABLES if os.environ.get(name)
    ]
    found = shutil.which("adb") or next((str(path) for path in homes if path.is_file()), None)
    if found is None:
        raise BenchError(
            "adb not found on PATH, in ANDROID_HOME or ANDROID_SDK_ROOT",
            next_step="install Android's platform tools, or measure over --on ssh:HOST with Termux",
        )
    return found


def choose_phone(adb: str, serial: str | None) -> str:
    """The serial of the phone that is meant. BenchError where none is ready, or several are."""
    listed = _run([adb, "devices", "-l"])
    if listed.returncode != 0:
        raise BenchError(
            f"adb can't list phones: {last_lines(listed.stderr)}", next_step="see that `adb devices` works"
        )
    phones = dict(line.split(None, 1) for line in listed.stdout.splitlines()[1:] if line.strip())
    if serial is None and len(phones) > 1:
        told = "\n".join(f"  adb:{name}: {state}" for name, state in phones.items())
        raise BenchError(f"several phones are attached:\n{told}", next_step="name one with --on adb:SERIAL")
    if not phones or (serial is not None and serial not in phones):
        wanted = f"no phone {serial} is attached" if serial else "no phone is attached"
        also = f"; found {', '.join(phones)}" if phones else ""
        raise BenchError(
            wanted + also,
            next_step="attach it and allow USB debugging in its developer options; see `adb devices`",
        )
    name = serial or next(iter(phones))
    for state, step in _STATES.items():
        if phones[name].startswith(state):
            raise BenchError(f"phone {name} is not ready: {state}", next_step=step)
    return name


class AdbShell(RemoteShell):
    """One phone."""

    def __init__(self, adb: str, serial: str) -> None:
        self.name = f"phone {serial}"
        self._command = [adb, "-s", serial]

    def run(self, script: str, *, stdin: str = "", timeout_s: float = STEP_TIMEOUT_S) -> Finished:
        """The script as one quoted word for the phone's sh; exit codes come from adb's shell protocol."""
        done = _run(
            [*self._command, "shell", "-T", f"sh -c {shlex.quote(script)}"], stdin=stdin, timeout_s=timeout_s
        )
        if _gone(done):
            raise BenchError(
                f"{self.name} is gone: {last_lines(done.stderr)}", next_step="attach it again, and run it again"
            )
        return done

    def send(self, file: Path, there: str) -> None:
        limit_s = STEP_TIMEOUT_S + file.stat().st_size / _SLOWEST_BYTES_PER_SECOND
        done = _run([*self._command, "push", str(file), there], timeout_s=limit_s)
        if done.returncode == 0:
            return
        told = last_lines(done.stderr + done.stdout)
        if "no space left" in told.lower():
            raise BenchError(f"{self.name} is full: {told}", next_step="make room on its storage")
        raise BenchError(
            f"{self.name}: {file.name} could not be sent: {told}", next_step="attach it, and run it again"
        )

    def close(self) -> None:
        """adb's server is the user's: it stays."""


def _gone(done: Finished) -> bool:
    said = ("not found", "device offline", "no devices", "closed", "device still", "unauthorized")
    return (
        done.returncode != 0
        and done.stderr.startswith(("adb:", "error:"))
        and any(s in done.stderr for s in said)
    )


def _run(command: list[str], *, stdin: str = "", timeout_s: float = STEP_TIMEOUT_S) -> Finished:
    try:
        done = subprocess.run(
            command, input=stdin.encode(), capture_output=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise BenchError(
            f"adb: a step took more than {timeout_s:.0f} s and was ended",
            next_step="ask for less, or see what the phone is busy with",
        ) from error
    return Finished(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
