"""What one rival is: what it needs installed, and the program that builds and runs it.

The descriptions are read by edgeicl; `build` and `load` run in the rival's own Python, which has numpy and its
engine but neither edgeicl's other libraries nor edgeicl itself.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgeicl.bench.protocol import Ids, time_repetition

Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RivalEnvironment:
    """Libraries that rivals share, and why these need a Python of their own.

    The first of `requirements` is the engine itself: an interpreter that has all of them by name will do,
    whatever their versions; those that it has are recorded.
    """

    name: str
    requirements: tuple[str, ...]
    why_apart: str

    @property
    def distributions(self) -> tuple[str, ...]:
        """Names to look for, without versions."""
        return tuple(re.split("[<>=]", requirement)[0] for requirement in self.requirements)


@dataclass(frozen=True)
class Rival:
    """One engine at one setting.

    `module`: file of this package with `build(checkpoint, folder, settings, context_tokens)`, which writes what
    is deployed into `folder`, `load(folder, settings, threads, context_tokens)`, which gives an Engine, and
    `IMPORTS`, the names of the libraries that `load` uses.
    `logit_tolerance`: largest ‖a − b‖ / ‖b‖ of its logits a to transformers' b in fp32, by its precision.
    """

    name: str
    description: str
    environment: RivalEnvironment
    module: str
    logit_tolerance: float
    settings: Mapping[str, Any] = field(default_factory=dict)
    provider: Literal["cpu", "cuda"] = "cpu"
    """What runs it; it is compared with artifacts that the same kind of processor runs."""
    fixes_context: bool = False
    """Whether what is built holds a key/value buffer of just so many tokens."""


class Engine(ABC):
    """A loaded rival. One sequence at a time; V is the vocabulary."""

    threads: int
    """As the engine tells them."""

    @abstractmethod
    def repetition(self, trace: Ids, prompt_tokens: int) -> tuple[float, list[float]]:
        """Milliseconds of the prefill of the first tokens of `trace`, and of the step of each later one."""

    @abstractmethod
    def last_logits(self, ids: Ids, prompt_tokens: int) -> Logits:
        """Logits [V] after the last of `ids` [T], of which the first are read as a prompt."""


class SteppedEngine(Engine):
    """An engine that takes a prompt, then tokens one by one."""

    @abstractmethod
    def reset(self) -> None:
        """Forgets everything that was read."""

    @abstractmethod
    def read(self, ids: Ids) -> Logits:
        """Reads on with tokens [1, T]; logits [1, V] after the last of them."""

    def prefill(self, input_ids: Ids) -> Logits:
        """Starts anew with a prompt [1, T]; logits [1, V] after its last token."""
        self.reset()
        return self.read(input_ids)

    def decode(self, token_ids: Ids) -> Logits:
        """Appends one token [1]; logits [1, V] after it."""
        return self.read(token_ids[None])

    def repetition(self, trace: Ids, prompt_tokens: int) -> tuple[float, list[float]]:
        return time_repetition(self, trace, prompt_tokens)

    def last_logits(self, ids: Ids, prompt_tokens: int) -> Logits:
        self.reset()
        logits = self.prefill(ids[None, :prompt_tokens])
        for index in range(prompt_tokens, len(ids)):
            logits = self.decode(ids[index : index + 1])
        last: Logits = logits[0]
        return last
