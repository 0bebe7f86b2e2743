"""Plays adb and one phone: `adb` on PATH is this file, its phone a folder. Faults are files in that folder.

ADB_PHONE names the folder: `storage` stands for /data/local/tmp, `tools` comes first on the phone's PATH, and
`faults` holds any of unauthorized, offline, none, two, disconnect, full, corrupt, gone, no-fixed-mode, and
`breaks-at` with the number of the shell call from which the phone is gone; `calls` counts them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TextIO

PHONE = Path(os.environ["ADB_PHONE"])
STORAGE = "/data/local/tmp"


def fault(name: str) -> bool:
    return (PHONE / "faults" / name).exists()


def say(text: str, stream: TextIO | None = None) -> None:
    (stream or sys.stdout).write(f"{text}\n")


def here(text: str) -> str:
    return text.replace(STORAGE, str(PHONE / "storage"))


def devices() -> int:
    say("List of devices attached")
    if not fault("none"):
        state = next((name for name in ("unauthorized", "offline") if fault(name)), "device")
        say(f"SERIAL1                {state} product:p model:Phone device:d transport_id:1")
    if fault("two"):
        say("SERIAL2                device product:p model:Other device:d transport_id:2")
    return 0


def push(file: str, there: str) -> int:
    if fault("disconnect"):
        say(f"adb: error: failed to copy '/home/me/workspace/{file}': EOF", sys.stderr)
        return 1
    if fault("full"):
        say(
            f"adb: error: failed to copy '{file}': remote write failed: No space left on device",
            sys.stderr,
        )
        return 1
    target = Path(here(there))
    shutil.copyfile(file, target)
    if fault("corrupt"):
        target.write_bytes(target.read_bytes()[:-1] + b"\0")
    return 0


def is_gone() -> bool:
    calls = PHONE / "calls"
    number = int(calls.read_text() or 0) + 1 if calls.exists() else 1
    calls.write_text(str(number))
    breaks = PHONE / "faults" / "breaks-at"
    return fault("gone") or (breaks.exists() and number == int(breaks.read_text()))


def shell(script: str) -> int:
    if is_gone():
        say("error: device 'SERIAL1' not found", sys.stderr)
        return 1
    environment = {"PATH": f"{PHONE / 'tools'}:/usr/bin:/bin", "ADB_PHONE": str(PHONE)}
    done = subprocess.run(
        ["/bin/sh", "-c", here(script)],
        env=environment,
        input=here(sys.stdin.read()),
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    sys.stdout.write(done.stdout.replace(str(PHONE / "storage"), STORAGE))
    return done.returncode


def main(arguments: list[str]) -> int:
    if arguments[0] == "-s":
        assert arguments[1] == "SERIAL1", arguments
        arguments = arguments[2:]
    if arguments[0] == "devices":
        return devices()
    if arguments[0] == "push":
        return push(*arguments[1:])
    assert arguments[:2] == ["shell", "-T"], arguments
    return shell(arguments[2])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
