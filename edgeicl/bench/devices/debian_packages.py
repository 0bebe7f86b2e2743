"""Packages of Debian, fetched for any architecture without touching this computer's own packages.

apt does it, with folders of its own for lists and archives, from the sources this computer is set up with; it
checks every signature and hash as always.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeicl.bench.devices.output import last_lines
from edgeicl.errors import BenchError

_TIMEOUT_S = 600
_NEEDED = ("apt-get", "dpkg-deb", "dpkg")


@dataclass(frozen=True)
class DebianPackages:
    """Packages of one architecture; apt's lists and archives are kept in `folder`.

    `suffix`: of the suite's name, such as `-backports`, where it is not the release itself.
    """

    folder: Path
    architecture: str
    suffix: str = ""

    def unpack(self, names: Sequence[str], into: Path) -> list[str]:
        """Fetches packages and unpacks them into a folder; `name_version` of each. BenchError if apt can't."""
        found = self._fetched(names)
        into.mkdir(parents=True, exist_ok=True)
        for path in found:
            self._run(["dpkg-deb", "--extract", str(path), str(into)])
        return [path.name.rsplit("_", 1)[0] for path in found]

    def depends(self, name: str) -> str:
        """What a package says that it depends on, as it says it."""
        text = self._run(["apt-cache", *self._options(), "show", name])
        named = ("Depends:", "Pre-Depends:")
        return ", ".join(line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(named))

    def update(self) -> None:
        """Reads the lists of packages."""
        require_apt()
        for name in ("lists/partial", "archives/partial", "debs"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        if self.suffix:
            (self.folder / "sources.list").write_text(suite_source(self.suffix))
        self._run(["apt-get", *self._options(), "update"])

    def _fetched(self, names: Sequence[str]) -> list[Path]:
        debs = self.folder / "debs"
        self._run(["apt-get", *self._options(), "download", *names], folder=debs)
        found = {name: sorted(debs.glob(f"{name}_*.deb")) for name in names}
        missing = [name for name, paths in found.items() if not paths]
        if missing:
            raise BenchError(f"apt fetched no package {', '.join(missing)} of {self.architecture}")
        return [paths[-1] for paths in found.values()]

    def _options(self) -> list[str]:
        settings = {
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "Dir::State::Lists": self.folder / "lists",
            "Dir::State::status": "/dev/null",
            "Dir::Cache": self.folder,
            "APT::Sandbox::User": "",  # the folder is the user's own
        }
        if self.suffix:
            settings |= {
                "Dir::Etc::SourceList": self.folder / "sources.list",
                "Dir::Etc::SourceParts": "/dev/null",
            }
        return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]

    def _run(self, command: list[str], *, folder: Path | None = None) -> str:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, cwd=folder
            )
        except subprocess.TimeoutExpired as error:
            raise BenchError(f"{command[0]} took more than {_TIMEOUT_S} s") from error
        if done.returncode != 0:
            raise BenchError(
                f"{command[0]} ended with exit code {done.returncode}:\n{last_lines(done.stderr)}",
                next_step="see that this computer's own `apt-get update` works",
            )
        return done.stdout


def require_apt() -> None:
    """BenchError where this computer has no apt."""
    missing = [program for program in _NEEDED if shutil.which(program) is None]
    if missing:
        raise BenchError(
            f"{', '.join(missing)} not found: packages are fetched by Debian's or Ubuntu's apt",
            next_step="do this on Debian or Ubuntu, or name what is there already (see `edgeicl doctor`)",
        )


def own_architecture() -> str:
    """This computer's, as its packages name it. BenchError where it has no packages of Debian's kind."""
    require_apt()
    done = subprocess.run(
        ["dpkg", "--print-architecture"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
    )
    return done.stdout.strip()


def release() -> str:
    """Code name of this computer's release, such as `bookworm`; empty where it has none."""
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        return ""


def suite_source(suffix: str) -> str:
    """One line of a sources.list: the release's suite with `suffix`, at the mirror of the release itself.

    Raises:
        BenchError: apt has no source for this computer's release.
    """
    done = subprocess.run(
        ["apt-get", "indextargets", "Created-By: Packages"],
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )
    for stanza in done.stdout.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line)
        if fields.get("Release") == release() and fields.get("Component") == "main":
            signed = f" [signed-by={fields['Signed-By']}]" if "Signed-By" in fields else ""
            return f"deb{signed} {fields['Repo-URI']} {release()}{suffix} main\n"
    raise BenchError(
        f"apt has no source for {release() or 'this release'}, so none for its {suffix.lstrip('-')} either",
        next_step="install qemu-user 10 or newer yourself, and put it on PATH",
    )
