"""A measurement beside its baseline."""

from __future__ import annotations

from pydantic import Field

from edgeicl.specs.spec import Spec


class Compared(Spec):
    """One metric in both results."""

    metric: str
    before: float
    now: float
    broken: tuple[str, ...] = Field((), description="Conditions of --fail-if on it that hold.")

    @property
    def change_percent(self) -> float:
        """Of the baseline's value."""
        return 100 * (self.now / self.before - 1)
