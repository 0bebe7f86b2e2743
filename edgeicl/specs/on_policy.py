"""How a student is taught on texts of its own."""

from __future__ import annotations

from pydantic import Field

from edgeicl.specs.spec import Spec


class OnPolicy(Spec):
    """Texts that the student goes on with after a query, for the teacher to judge.

    Their weight in the loss is `objective.on_policy`. GKD (arXiv 2306.13649, section 3) samples at temperature
    1; the length of a text is this program's choice.
    """

    tokens: int = Field(8, ge=1, description="Tokens that the student samples after each query.")
    temperature: float = Field(
        1.0, gt=0.0, description="Divides the student's logits before sampling; below 1 it keeps to its best."
    )
