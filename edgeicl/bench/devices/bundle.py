"""What a phone runs that has no Python: loader, libraries, Python, numpy, onnxruntime, of the aarch64 system.

A glibc userland of its own that needs no app and nothing of Android's: the loader is called by name, with the
folder of its libraries.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

from edgeicl.bench.devices.sysroot import Sysroot
from edgeicl.errors import BenchError
from edgeicl.kept import kept

LOADER = "lib/ld-linux-aarch64.so.1"
PYTHON = "python"
STDLIB = "stdlib"
SITE = "site"
_FILE = "bundle.tar.gz"
_SKIPPED = {
    "__pycache__", "test", "tests", "idlelib", "lib2to3", "pydoc_data", "ensurepip", "distutils", "include",
    "transformers", "quantization", "tools", "f2py",
}  # fmt: skip
_SKIPPED_ENDINGS = (".pyc", ".pyi", ".a", ".h", ".txt", ".md")


def command() -> list[str]:
    """The words that run its Python, from its folder."""
    return [f"./{LOADER}", "--library-path", "lib", f"./{PYTHON}", "-s"]


def environment() -> dict[str, str]:
    """What its Python is told, relative to its folder."""
    return {"PYTHONHOME": STDLIB, "PYTHONPATH": f"{STDLIB}:{STDLIB}/lib-dynload:{SITE}"}


def build_bundle(sysroot: Sysroot) -> Path:
    """One tar with all of it, in the cache; made once for each system.

    Raises:
        BenchError: the system lacks something that belongs in it.
    """

    def make(folder: Path) -> dict[str, dict[str, str]]:
        with tarfile.open(folder / _FILE, "w:gz", compresslevel=6, dereference=True) as archive:
            for name, path in members(sysroot):
                archive.add(path, name, recursive=False, filter=_plain)
        return {"versions": sysroot.versions}

    return kept("bundle", [str(sysroot.folder), sysroot.versions], make) / _FILE


def members(sysroot: Sysroot) -> Iterator[tuple[str, Path]]:
    """Name in the bundle -> file; links are followed, since not every file system on a phone has them."""
    root = sysroot.folder
    folders = [root / "lib" / "aarch64-linux-gnu", root / "usr" / "lib" / "aarch64-linux-gnu"]
    loader = next((path for path in root.glob("lib/ld-linux-aarch64.so.1")), None)
    if loader is None or not loader.exists():
        loader = next(
            (f / "ld-linux-aarch64.so.1" for f in folders if (f / "ld-linux-aarch64.so.1").exists()), None
        )
    if loader is None:
        raise BenchError(f"{root} has no ld-linux-aarch64.so.1; expected the root of an aarch64 system")
    yield LOADER, loader
    seen = set()
    for folder in folders:
        for path in sorted(folder.glob("*.so*")):
            if path.is_file() and path.name not in seen and path.name != "ld-linux-aarch64.so.1":
                seen.add(path.name)
                yield f"lib/{path.name}", path
    yield PYTHON, sysroot.python
    # Python looks for its library in lib/pythonX.Y below its home.
    version = sysroot.python.name
    for path in _kept(root / "usr" / "lib" / version):
        yield f"{STDLIB}/lib/{version}/{path.relative_to(root / 'usr' / 'lib' / version)}", path
    for path in _kept(sysroot.site):
        yield f"{SITE}/{path.relative_to(sysroot.site)}", path


def _kept(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_file() and not _SKIPPED & {*parts[:-1]} and not path.name.endswith(_SKIPPED_ENDINGS):
            yield path


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same bytes whoever makes it."""
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o755 if entry.mode & 0o100 else 0o644
    return entry
