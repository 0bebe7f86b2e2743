"""Outputs of stages, addressed by what went into them.

A stage's folder is named by a digest of its inputs, its code and the versions of the libraries. It is built
under a `.partial` name, whose `checkpoint/` survives a kill so that a stage can go on from there, and gets
its final name in one rename once every file's hash is written down. Whatever has the final name is whole;
its hashes are checked before it is used again, and a damaged one is built anew. An older output stays until
then. Who must not lose what was stored holds `cache_lock.in_use`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from filelock import FileLock

from edgeicl import __version__
from edgeicl.errors import DataError, IntegrityError

log = logging.getLogger(__name__)

RECORD = "stage.json"
CHECKPOINT = "checkpoint"
"""Folder in the folder of an unfinished stage: all that survives a kill."""
_VERSIONED = (
    *("torch", "transformers", "tokenizers", "accelerate", "peft", "bitsandbytes"),
    *("onnx", "onnxruntime", "numpy", "safetensors"),
)


T = TypeVar("T")


class Workers(Protocol):
    """The processes that run one command together. One of them writes."""

    @property
    def is_writer(self) -> bool: ...

    @property
    def index(self) -> int:
        """Which of them this is, from 0."""

    @property
    def count(self) -> int: ...

    @property
    def shards_teacher(self) -> bool:
        """Whether each holds a part of the teacher's weights only, so that all must run it together."""

    def barrier(self) -> None:
        """Wait for all."""

    def from_writer(self, value: T) -> T:
        """The writer's value, in every process."""

    def from_all(self, value: T) -> list[T]:
        """The value of each, in the order of `index`, in every process."""


class SingleProcess:
    """The ordinary case: this process alone."""

    is_writer = True
    index = 0
    count = 1
    shards_teacher = False

    def barrier(self) -> None:
        return

    def from_writer(self, value: T) -> T:
        return value

    def from_all(self, value: T) -> list[T]:
        return [value]


ALONE = SingleProcess()


@dataclass(frozen=True)
class StageOutput:
    """A finished stage: its folder, its digest, and whether it had to be built."""

    path: Path
    digest: str
    reused: bool
    seconds: float


def cache_root() -> Path:
    """`EDGEICL_CACHE_DIR`, else the user's cache folder."""
    named = os.environ.get("EDGEICL_CACHE_DIR")
    if named:
        return Path(named)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "edgeicl"


def file_sha256(path: Path) -> str:
    """Hash of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Writes a file so that nobody ever finds half of it, whatever interrupts this."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def folder_hashes(folder: Path) -> dict[str, str]:
    """Relative name -> hash, for every file below `folder`."""
    return {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def digest_of(value: object) -> str:
    """Digest of anything JSON can write; equal values have equal digests."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def code_digest() -> str:
    """Digest of edgeicl's own source, so that changed code never reuses old results."""
    return digest_of(
        {name: sha256 for name, sha256 in folder_hashes(Path(__file__).parent).items() if name.endswith(".py")}
    )


def library_versions() -> dict[str, str]:
    """Versions of edgeicl and of the libraries whose numbers end up in an artifact."""
    versions = {"edgeicl": __version__}
    for name in _VERSIONED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "absent"
    return versions


class Store:
    """A folder of stage outputs, shared by runs and safe against runs beside each other."""

    def __init__(self, root: Path, *, rebuild: bool = False, workers: Workers | None = None) -> None:
        self.root = root
        self.rebuild = rebuild
        self.workers = workers or ALONE
        self._rebuilt: set[Path] = set()

    def place(self, stage: str, inputs: Mapping[str, Any]) -> tuple[Path, str]:
        """The folder that the output of `stage` for `inputs` has, or will have, and its digest."""
        digest = digest_of(
            {"stage": stage, "inputs": inputs, "code": code_digest(), "versions": library_versions()}
        )
        return self.root / stage / digest[:24], digest

    def holds(self, stage: str, inputs: Mapping[str, Any]) -> bool:
        """Whether `run` would find the output."""
        return not self.rebuild and is_sound(stage, self.place(stage, inputs)[0])

    def run(self, stage: str, inputs: Mapping[str, Any], build: Callable[[Path], None]) -> StageOutput:
        """The output of `stage` for `inputs`: the stored one, or the one that `build` makes.

        Args:
            stage: Name of the stage; a folder of the store.
            inputs: All that decides the result, as JSON values: specs, digests of earlier stages, seeds.
            build: Writes the output into the folder it is given. What it left below `checkpoint/` when it
                was last killed is still there, unless `rebuild`; that folder is dropped at the end.

        Raises:
            DataError: this process's inputs are not those of the writer.
        """
        final, digest = self.place(stage, inputs)
        started = time.monotonic()
        if not self.workers.is_writer:
            expected, reuse = self.workers.from_writer((digest, False))
            if digest != expected:
                raise DataError(
                    f"{stage}: this process has other inputs than the one that writes: found the digest "
                    f"{digest[:12]}, expected {expected[:12]}",
                    next_step="give all nodes the same recipe, data, models, edgeicl and library versions",
                )
            if not reuse:
                self.workers.barrier()
                build(final.with_name(f"{final.name}.partial"))
                self.workers.barrier()
            self.workers.barrier()
            return StageOutput(final, digest, reuse, time.monotonic() - started)

        final.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(final.with_name(f"{final.name}.lock")):
            rebuild = self.rebuild and final not in self._rebuilt
            _, reuse = self.workers.from_writer((digest, not rebuild and is_sound(stage, final)))
            if not reuse:
                partial = final.with_name(f"{final.name}.partial")
                empty_folder(partial, keep=None if rebuild else CHECKPOINT)
                self.workers.barrier()
                build(partial)
                self.workers.barrier()
                self._publish(partial, final, stage, digest)
                self._rebuilt.add(final)
        self.workers.barrier()
        return StageOutput(final, digest, reuse, time.monotonic() - started)

    def _publish(self, partial: Path, final: Path, stage: str, digest: str) -> None:
        shutil.rmtree(partial / CHECKPOINT, ignore_errors=True)
        write_record(partial, stage=stage, digest=digest, versions=library_versions())
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)


def empty_folder(folder: Path, *, keep: str | None) -> None:
    """Makes `folder`, or removes all that is in it except `keep`."""
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.iterdir():
        if left_over.name == keep:
            continue
        if left_over.is_dir() and not left_over.is_symlink():
            shutil.rmtree(left_over)
        else:
            left_over.unlink()


def write_record(folder: Path, **about: object) -> None:
    """Writes the hash of every file in `folder` down, and what else is to be known `about` it."""
    record = about | {"files": folder_hashes(folder)}
    (folder / RECORD).write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")


def verify_stage(folder: Path) -> dict[str, Any]:
    """The record of `folder`; IntegrityError unless it holds just what was written, byte for byte."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text())
        recorded: dict[str, str] = dict(record["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{folder} has no readable {RECORD}") from error
    found = folder_hashes(folder)
    found.pop(RECORD, None)
    wrong = sorted(name for name in recorded.keys() | found.keys() if recorded.get(name) != found.get(name))
    if wrong:
        raise IntegrityError(f"{folder} was changed after it was written: {', '.join(wrong)}")
    return record


def is_sound(stage: str, final: Path) -> bool:
    """Whether a whole output lies in the folder `final`; a damaged one is told."""
    if not final.exists():
        return False
    try:
        verify_stage(final)
    except IntegrityError as error:
        log.warning("%s: %s; rebuilding", stage, error)
        return False
    return True
