"""Trainings that die, and what they do again: steps of `trainer.train`, counted over all trainings inside."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgeicl.distill import trainer


class KilledError(Exception):
    """As a process that is killed, nothing catches it."""


@contextmanager
def counted_steps(*, killed_before: int | None = None) -> Iterator[list[int]]:
    """The number of each step that is begun; the one `killed_before` was to follow (from 0) is not done."""
    plan, begun = trainer.learning_rate_at, list[int]()

    def counts(step: int, **rest: float) -> float:
        if len(begun) == killed_before:
            raise KilledError
        begun.append(step)
        return plan(step, **rest)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(trainer, "learning_rate_at", counts)
        yield begun


@contextmanager
def killed_before(step: int) -> Iterator[None]:
    """The training inside must die before its `step` (from 0, over all trainings inside)."""
    with counted_steps(killed_before=step), pytest.raises(KilledError):
        yield
