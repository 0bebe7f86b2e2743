"""`ssh:HOST`: any board or phone that the system's ssh reaches, with the user's own configuration."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeicl.bench.devices.device import Device
from edgeicl.bench.devices.output import last_lines
from edgeicl.bench.devices.remote import RemoteWorkbench, memory_problems
from edgeicl.bench.devices.ssh_shell import SshShell, parse_host
from edgeicl.bench.devices.wheels import PythonThere, fetch_wheels, requirements_like_here
from edgeicl.errors import BenchError, Problem, SpecError

# The first folder that can be written: the user's own, on a disk, before one that may be memory.
_PREFLIGHT = """
export ORT_DISABLE_TELEMETRY=1
for folder in "$HOME" "$TMPDIR" /tmp; do
  if [ -n "$folder" ] && [ -d "$folder" ] && [ -w "$folder" ]; then echo "folder=$folder"; break; fi
done
command -v taskset >/dev/null && echo "taskset=yes"
command -v sha256sum >/dev/null && echo "sha256sum=yes"
[ -n "$TERMUX_VERSION" ] && echo "termux=$TERMUX_VERSION"
for python in python3 python; do
  if command -v "$python" >/dev/null; then echo "python=$python"; break; fi
done
[ -z "$python" ] || "$python" -c '
import json, platform, struct, sys
found = {"version": "%d.%d" % sys.version_info[:2], "machine": platform.machine()}
found["libc"] = platform.libc_ver()[1]
found["bits"] = 8 * struct.calcsize("P")
for name in ("numpy", "onnxruntime"):
    try:
        found[name] = __import__(name).__version__
    except Exception as error:
        found[name + "_error"] = repr(error)
print("about=" + json.dumps(found))
'
exit 0
"""


@dataclass(frozen=True)
class SshDevice(Device):
    """A host that ssh reaches; `install` sends numpy and onnxruntime along where it lacks them."""

    def __post_init__(self) -> None:
        problems = memory_problems(self.limits)
        host, port = parse_host(self.address)
        no_port = port is None and host.count(":") == 1  # more of them are an address of IPv6
        if not host or host.startswith("-") or no_port or (port is not None and not 0 < port < 65536):
            expected = "expected ssh:HOST, ssh:USER@HOST or ssh:HOST:PORT"
            problems.append(Problem("--on", f"found {self.address}", expected))
        if problems:
            raise SpecError("device", problems)

    def open(self) -> RemoteWorkbench:
        host, port = parse_host(self.address)
        shell = SshShell(host, port)
        try:
            return self._prepared(shell)
        except BaseException:
            shell.close()
            raise

    def _prepared(self, shell: SshShell) -> RemoteWorkbench:
        found = _preflight(shell)
        about: dict[str, Any] = json.loads(found.get("about", "{}"))
        lacking = [name for name in ("numpy", "onnxruntime") if name not in about]
        _require(shell.name, found, about, [] if self.install else lacking, cores=bool(self.limits.cores))
        bench = RemoteWorkbench(
            shell,
            parent=found["folder"],
            python=[found["python"]],
            cores=self.limits.cores or (),
        )
        if lacking:
            try:
                _send_wheels(bench, about)
            except BaseException:
                bench.close()
                raise
        return bench


def _preflight(shell: SshShell) -> dict[str, str]:
    """What is there, all in one step."""
    done = shell.run(_PREFLIGHT)
    found = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if done.returncode != 0:
        raise BenchError(f"{shell.name}: its shell is none that POSIX knows: {last_lines(done.stderr)}")
    return found


def _require(
    name: str, found: dict[str, str], about: dict[str, Any], lacking: Sequence[str], *, cores: bool
) -> None:
    """BenchError that lists everything the host lacks, and how to get it."""
    problems = []
    if "folder" not in found:
        problems.append("neither its HOME, TMPDIR nor /tmp can be written")
    if "python" not in found:
        problems.append("no python3")
    if "sha256sum" not in found:
        problems.append("no sha256sum, by which files that arrive are verified")
    if cores and "taskset" not in found:
        problems.append("no taskset, by which --cores is kept (package util-linux)")
    if "python" in found:
        problems += [
            f"no {library} for its {found['python']} {about.get('version', '')}: "
            f"{about.get(f'{library}_error', 'unknown')}"
            for library in lacking
        ]
    if problems:
        steps = [
            "add --install to send onnxruntime and numpy along",
            "or `pip install onnxruntime numpy` there",
        ]
        if "termux" in found:
            steps = ["`pkg install python python-numpy python-onnxruntime` in Termux"]
        raise BenchError(
            "\n  ".join([f"{name} is not ready:", *problems]),
            next_step=", ".join(steps) if lacking else "install what is missing there",
        )


def _send_wheels(bench: RemoteWorkbench, about: dict[str, Any]) -> None:
    """numpy and onnxruntime into a folder of ours there; wheels are kept in the cache here."""
    libc = str(about.get("libc") or "")
    if not libc.startswith("2."):
        raise BenchError(
            f"{bench.shell.name}: its Python has no glibc, which wheels need; found {libc or 'another libc'}",
            next_step="install onnxruntime and numpy there with the system's own packages",
        )
    if about["bits"] != 64:
        raise BenchError(
            f"{bench.shell.name}: its Python is one of {about['bits']} bits; onnxruntime has wheels for 64",
            next_step="install a 64-bit system there, or onnxruntime and numpy by its own packages",
        )
    python = PythonThere(about["version"], about["machine"], int(libc.split(".")[1]))
    bench.install(fetch_wheels(requirements_like_here(), python))
