"""The shell of a host, by the system's ssh: its configuration, keys and known hosts are the user's own.

One connection serves all steps (ControlMaster, in a private folder), and no step can hang: ssh never asks
anything, and gives up on a silent link.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from edgeicl.bench.devices.output import last_lines
from edgeicl.bench.devices.remote import STEP_TIMEOUT_S, Finished, RemoteShell
from edgeicl.errors import BenchError

CONFIG = "EDGEICL_SSH_CONFIG"
"""Environment variable that names another configuration than the user's own (`ssh -F`)."""

_OPTIONS = {
    "BatchMode": "yes",
    "ConnectTimeout": "15",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "ControlMaster": "auto",
    "ControlPersist": "60",
}
_LINK_BROKE = 255  # ssh's own exit code
_SENDS = 3  # times that a file is begun or gone on with
_SLOWEST_BYTES_PER_SECOND = 50e3
_PAUSE_S = 1.0


def parse_host(address: str) -> tuple[str, int | None]:
    """`ssh:USER@HOST:PORT` -> (`USER@HOST`, PORT); an address of IPv6 needs brackets before a port."""
    rest = address.partition(":")[2]
    user, at, host = rest.rpartition("@")
    bracketed = re.fullmatch(r"\[([^]]+)\](?::([0-9]{1,5}))?", host)
    match = bracketed or re.fullmatch(r"([^:]+):([0-9]{1,5})", host)
    if match is None:
        return rest, None
    return f"{user}{at}{match[1]}", int(match[2]) if match[2] else None


class SshShell(RemoteShell):
    """One host."""

    def __init__(self, host: str, port: int | None = None) -> None:
        """BenchError where there is no ssh here. Nothing is asked of the host yet."""
        if shutil.which("ssh") is None:
            raise BenchError("ssh not found", next_step="install OpenSSH's client")
        self.name = host
        self._folder = tempfile.mkdtemp(
            prefix="edgeicl-ssh-"
        )  # mode 700, and short: a socket's path is at most 100
        self._command = ["ssh", "-T", "-o", f"ControlPath={self._folder}/c"]
        for key, value in _OPTIONS.items():
            self._command += ["-o", f"{key}={value}"]
        if os.environ.get(CONFIG):
            self._command += ["-F", os.environ[CONFIG]]
        if port is not None:
            self._command += ["-p", str(port)]

    def run(self, script: str, *, stdin: str = "", timeout_s: float = STEP_TIMEOUT_S) -> Finished:
        done = self._ssh(script, stdin.encode(), timeout_s)
        if done.returncode == _LINK_BROKE:
            raise BenchError(
                f"{self.name} can't be reached: {last_lines(done.stderr)}",
                next_step=f"see that `ssh {self.name} true` works without a question",
            )
        return done

    def send(self, file: Path, there: str) -> None:
        size, sent, path = file.stat().st_size, 0, shlex.quote(there)
        told = ""
        for attempt in range(_SENDS):
            if attempt:
                time.sleep(_PAUSE_S)
                sent = self._arrived(path)
            with file.open("rb") as stream:
                stream.seek(sent)
                script = f"cat >> {path}" if sent else f"cat > {path}"
                done = self._ssh(script, stream, STEP_TIMEOUT_S + (size - sent) / _SLOWEST_BYTES_PER_SECOND)
            told = last_lines(done.stderr)
            if done.returncode == 0 and self._arrived(path) == size:
                return
            if done.returncode not in (0, _LINK_BROKE):
                raise BenchError(
                    f"{self.name}: {there} can't be written: {told}", next_step="make room there, or see why"
                )
        raise BenchError(
            f"{self.name}: the link broke while {file.name} was sent, {_SENDS} times: {told}",
            next_step="run it again when the link holds",
        )

    def close(self) -> None:
        with suppress(subprocess.TimeoutExpired, OSError):
            subprocess.run(
                [*self._command, "-O", "exit", "--", self.name],
                capture_output=True,
                check=False,
                timeout=STEP_TIMEOUT_S,
            )
        shutil.rmtree(self._folder, ignore_errors=True)

    def _arrived(self, quoted_path: str) -> int:
        """Bytes of the file there; 0 where the host can't be asked."""
        done = self._ssh(f"wc -c < {quoted_path}", b"", STEP_TIMEOUT_S)
        found = done.stdout.strip()
        return int(found) if done.returncode == 0 and found.isdigit() else 0

    def _ssh(self, script: str, stdin: bytes | IO[bytes], timeout_s: float) -> Finished:
        # Whatever shell the user has there is handed one quoted word, for sh.
        command = [*self._command, "--", self.name, f"sh -c {shlex.quote(script)}"]
        given: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
        # The connection that stays keeps stderr open: a pipe would never end, a file does.
        errors = Path(self._folder) / "stderr"
        try:
            with errors.open("wb") as stream:
                done = subprocess.run(
                    command, stdout=subprocess.PIPE, stderr=stream, timeout=timeout_s, check=False, **given
                )
        except subprocess.TimeoutExpired as error:
            raise BenchError(
                f"{self.name}: a step took more than {timeout_s:.0f} s and was ended",
                next_step="ask for less, or see what the device is busy with",
            ) from error
        return Finished(
            done.returncode, done.stdout.decode(errors="replace"), errors.read_text(errors="replace")
        )
