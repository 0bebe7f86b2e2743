"""A task beside the one that a recipe is for, to train on."""

from __future__ import annotations

from pydantic import Field

from edgeicl.specs.pattern import PlainPattern
from edgeicl.specs.source import Source
from edgeicl.specs.spec import Spec


class TuningTask(Spec):
    """A further task to tune on; what it leaves out is as in `task`."""

    pattern: PlainPattern | None = Field(None, description="Text of one example; else that of `task`.")
    verbalizers: dict[str, str] | None = Field(
        None, min_length=2, description="Label -> the word(s) that stand for it; else those of `task`."
    )
    separator: str | None = Field(None, description="Text between demonstrations; else that of `task`.")
    train: Source = Field(description="Demonstrations and queries are drawn from it.")
