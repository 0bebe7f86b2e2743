"""What of the student is trained: all weights, low-rank updates of them, or biases alone."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeicl.specs.spec import Spec

AdapterKind = Literal["none", "lora", "bitfit"]


class Lora(Spec):
    """Low-rank updates of linear layers (Hu et al., 2021, arXiv 2106.09685).

    There is no dropout: students are trained without any, so that the result does not depend on how many
    processes share a batch.
    """

    rank: int = Field(8, ge=1, description="Rank of each update.")
    alpha: int = Field(16, ge=1, description="Updates are scaled by alpha / rank.")
    target_modules: tuple[str, ...] = Field(
        (),
        description="Last names of the linear layers that get an update, such as `q_proj`; none: those of "
        "attention and MLP, all of them.",
    )
