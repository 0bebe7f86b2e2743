"""What every document that crosses a boundary is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Share = Annotated[float, Field(ge=0.0)]


class Spec(BaseModel):
    """Base of everything that crosses a boundary: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)
