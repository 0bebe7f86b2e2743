"""What a device is to the runtime layer: somewhere to place files and run one of our programs.

A device is an address and what may be used there; a workbench is that device made ready, with a folder of ours
that is gone when the workbench is closed. Programs are those of `programs.py`: JSON in, JSON out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from edgeicl.specs.measurement import Fidelity

Provider = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class Limits:
    """What of a device may be used; None: all of it.

    `cores`: logical cores by number. `memory_bytes`: of the process that runs the artifact. `like`: what they
    were taken from, for those who read the result.
    """

    cores: tuple[int, ...] | None = None
    memory_bytes: int | None = None
    like: str | None = None

    @property
    def any(self) -> bool:
        return self.cores is not None or self.memory_bytes is not None


class Workbench(AbstractContextManager["Workbench"], ABC):
    """A device that is ready. Closing it leaves nothing of ours there, whatever happened in between."""

    @abstractmethod
    def place(self, files: Mapping[str, Path]) -> None:
        """Makes files of this computer available there under their names; called any number of times.

        On return every file there has the SHA-256 of the one here.

        Raises:
            BenchError: a link that broke, no room; says what to do. Nothing half-written is ever run.
            IntegrityError: what arrived is not what was sent.
        """

    @abstractmethod
    def path(self, name: str) -> str:
        """The path of a placed file there, for a program's request."""

    @abstractmethod
    def run(self, program: str, request: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        """What the program answered: the JSON object on the last line of its output.

        Raises:
            BenchError: it failed, took longer than `timeout_s` and was ended, or wrote no answer.
        """

    def state(self) -> dict[str, Any]:
        """What only the device's own tools tell of it now: battery, thermal status. Empty where none does."""
        return {}

    def held_limits(self) -> list[str]:
        """The limits that hold there, in words, and what holds them; empty where nothing is limited."""
        return []

    @abstractmethod
    def close(self) -> None:
        """Removes what was placed. Never raises: what could not be removed is logged, with its place."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class Device(ABC):
    """Where an artifact runs.

    `fidelity` is what its times are called: measured, or emulated; None where times mean nothing.
    """

    address: str
    limits: Limits = field(default_factory=Limits)
    install: bool = False
    """Whether numpy and onnxruntime are sent along where the device lacks them; only ssh asks."""

    fidelity: Fidelity | None = field(default="measured", init=False)
    provider: Provider = field(default="cpu", init=False)
    here: bool = field(default=False, init=False)
    """Whether it is of this computer, so that its other work can be looked at."""

    @abstractmethod
    def open(self) -> Workbench:
        """Makes the device ready. BenchError that says what is missing there, and what to do."""
