"""A host of our own for the tests of ssh: sshd on loopback, with faults to switch on."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnxruntime
import psutil

from edgeicl.bench.devices.remote import PREFIX

# Stands between sshd and the shell: a file called `break`, `full` or `corrupt` beside it spoils what is sent.
GATE = """#!/bin/sh
faults={faults}
case "$SSH_ORIGINAL_COMMAND" in
  *"cat >"*)
    if [ -s $faults/break ]; then
      left=$(cat $faults/break); echo $((left - 1)) > $faults/break
      if [ "$left" -gt 0 ]; then
        echo "$SSH_ORIGINAL_COMMAND" | sed 's/cat >/head -c 1000 >/' > $faults/partial.sh
        sh $faults/partial.sh; kill -9 $PPID; exit 1
      fi
    fi
    if [ -e $faults/corrupt ]; then
      echo "$SSH_ORIGINAL_COMMAND" | sed 's/cat >/tr a-y b-z >/' > $faults/corrupt.sh
      exec sh $faults/corrupt.sh
    fi
    ;;
esac
exec sh -c "$SSH_ORIGINAL_COMMAND"
"""
CONFIG_OF_SERVER = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile {folder}/pid
AuthorizedKeysFile {folder}/key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
ForceCommand {folder}/gate
SetEnv HOME={home} PATH={path}
"""
CONFIG_OF_CLIENT = """
Host board
  HostName 127.0.0.1
  Port {port}
  IdentityFile {folder}/key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  StrictHostKeyChecking accept-new
"""


class Board:
    """A host of our own, reached as `ssh:board`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.programs = folder, folder / "home", folder / "bin"
        for made in (self.home, self.programs):
            made.mkdir()
        self.python()
        (folder / "gate").write_text(GATE.format(faults=folder))
        (folder / "gate").chmod(0o755)
        for name in ("host_key", "key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
            subprocess.run(command, check=True)
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            self.port = found.getsockname()[1]
        self._server: subprocess.Popen[bytes] | None = None

    def python(self, *options: str) -> None:
        """What `python3` is there; `-S` has neither numpy nor onnxruntime."""
        path = self.programs / "python3"
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {" ".join(options)} "$@"\n')
        path.chmod(0o755)

    def start(self, home: Path | None = None) -> None:
        settings = {"port": self.port, "folder": self.folder, "home": home or self.home}
        path = f"{self.programs}:/usr/local/bin:/usr/bin:/bin"
        (self.folder / "sshd_config").write_text(CONFIG_OF_SERVER.format(**settings, path=path))
        (self.folder / "config").write_text(CONFIG_OF_CLIENT.format(**settings))
        sshd = shutil.which("sshd") or "/usr/sbin/sshd"
        command = [sshd, "-D", "-e", "-f", str(self.folder / "sshd_config")]
        log = (self.folder / "log").open("wb")
        self._server = subprocess.Popen(command, stdout=log, stderr=log)
        for _ in range(100):
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self) -> None:
        """The server and every connection."""
        if self._server and self._server.poll() is None:
            connections = psutil.Process(self._server.pid).children(recursive=True)
            self._server.kill()
            self._server.wait(10)
            for process in connections:
                with suppress(psutil.NoSuchProcess):
                    process.kill()

    def left(self) -> list[str]:
        """Folders of ours that lie there still."""
        return [path.name for path in self.home.iterdir() if path.name.startswith(PREFIX)]

    def fault(self, name: str, text: str = "") -> None:
        (self.folder / name).write_text(text)

    def mend(self) -> None:
        for name in ("break", "corrupt"):
            (self.folder / name).unlink(missing_ok=True)


def wheels_of_this_python(folder: Path) -> list[Path]:
    """What pip would fetch, made of what is installed here."""
    made = []
    for module, also in ((np, "numpy.libs"), (onnxruntime, "")):
        package = Path(module.__file__).parent
        path = folder / f"{package.name}-1-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for root in (package, package.with_name(also or "none")):
                for file in root.rglob("*") if root.is_dir() else ():
                    if file.is_file() and not {"tests", "__pycache__", "transformers", "tools"} & {*file.parts}:
                        archive.write(file, file.relative_to(package.parent))
        made.append(path)
    return made
