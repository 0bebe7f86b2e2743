"""A rival that is ready to run: built from the student, and shown to compute the student."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgeicl.bench.protocol import token_trace
from edgeicl.bench.rivals.environment import find_python
from edgeicl.bench.rivals.process import RivalProcess
from edgeicl.bench.rivals.rival import Logits, Rival
from edgeicl.bench.rivals.table import REFERENCE
from edgeicl.bench.workload import Workload
from edgeicl.errors import BenchError
from edgeicl.store import Store

_CHECK_PROMPT_TOKENS = 24
_CHECK_STEPS = 8


@dataclass(frozen=True)
class Contender:
    """A built rival, `logit_error` away from transformers' fp32."""

    process: RivalProcess
    folder: Path
    context_tokens: int
    logit_error: float

    @property
    def rival(self) -> Rival:
        return self.process.rival

    @property
    def file_bytes(self) -> int:
        """Of what was built: graph and weights, without what people or tokenizers read."""
        return model_bytes(self.folder)

    def measure(self, workload: Workload, *, vocabulary: int) -> dict[str, Any]:
        """One process; see RivalProcess.measure."""
        return self.process.measure(
            self.folder, workload, vocabulary=vocabulary, context_tokens=self.context_tokens
        )


@dataclass(frozen=True)
class RivalBuilder:
    """Makes contenders of one checkpoint, in the Pythons that were given, and keeps them in the store."""

    checkpoint: Path
    checkpoint_digests: Mapping[str, str]
    vocabulary: int
    context_tokens: int
    store: Store
    pythons: Mapping[str, Path]
    install: bool = False

    def built(self, rival: Rival) -> tuple[RivalProcess, Path]:
        """The rival's process and folder, from the store where it was built before.

        Raises:
            BenchError: it is not installed, or could not be built.
        """
        environment = rival.environment
        python = find_python(environment, given=self.pythons.get(environment.name), install=self.install)
        process = RivalProcess(rival, python)
        inputs = {
            "rival": rival.name,
            "settings": dict(rival.settings),
            "checkpoint": dict(self.checkpoint_digests),
            "versions": dict(python.versions),
            "context_tokens": self.context_tokens if rival.fixes_context else None,
        }

        def build(folder: Path) -> None:
            process.build(self.checkpoint, folder, context_tokens=self.context_tokens)

        return process, self.store.run("rival", inputs, build).path

    def contender(self, rival: Rival, reference: Logits) -> Contender:
        """The rival, ready to run.

        Raises:
            BenchError: it is not installed, could not be built, or computes something else than the student.
        """
        process, folder = self.built(rival)
        error = relative_error(self.logits(process, folder), reference)
        # Written so that NaN is an error too.
        if not error <= rival.logit_tolerance:
            raise BenchError(
                f"{rival.name} computes something else than the student: its logits are {error:.3g} of their "
                f"norm away from transformers' in fp32; expected at most {rival.logit_tolerance:g}"
            )
        return Contender(process, folder, self.context_tokens, error)

    def reference(self) -> Logits:
        """Logits of the student by transformers in fp32. BenchError where transformers is not to be had."""
        return self.logits(*self.built(REFERENCE))

    def logits(self, process: RivalProcess, folder: Path) -> Logits:
        """Logits [V] after some tokens of a prompt and some steps, which read what the prompt left."""
        count = min(_CHECK_PROMPT_TOKENS + _CHECK_STEPS, self.context_tokens)
        ids = token_trace(count, self.vocabulary).tolist()
        prompt_tokens = max(1, count - _CHECK_STEPS)
        return process.last_logits(folder, ids, prompt_tokens=prompt_tokens, context_tokens=self.context_tokens)


def relative_error(found: Logits, expected: Logits) -> float:
    """‖found − expected‖ / ‖expected‖; infinite where the shapes differ."""
    if found.shape != expected.shape:
        return float("inf")
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def model_bytes(folder: Path) -> int:
    """Bytes of the model in a folder that a tool wrote."""
    read_by_people: Sequence[str] = (".json", ".txt", ".md", ".jinja")
    return sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in read_by_people and "tokenizer" not in path.name
    )
