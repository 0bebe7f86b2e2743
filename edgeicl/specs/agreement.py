"""Whether an artifact computes on a device what it computes here."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeicl.specs.spec import Spec


class Side(Spec):
    """One of the two that computed."""

    address: str
    machine: str
    features: tuple[str, ...] = Field(description="Instructions by which kernels are chosen.")
    runtime_version: str = Field(description="Of onnxruntime.")
    providers: tuple[str, ...]


class Agreement(Spec):
    """Logits of the same tokens, read as a prompt and then one by one, on a device and on this computer."""

    version: Literal[1] = 1
    device: Side
    here: Side
    artifact_sha256: str
    formats: tuple[str, ...] = Field(description="Of the artifact's weights.")
    prefix_tokens: int
    prompt_tokens: int
    decode_tokens: int
    relative_error: float = Field(description="Norm of the difference over the norm of the logits here.")
    largest_difference: float
    same_choice: float = Field(description="Share of positions with the same largest logit.")
    tolerance: float = Field(description="Largest relative error that is accepted for these formats.")
    why: str = Field(description="Where the tolerance comes from.")

    @property
    def agrees(self) -> bool:
        """False for NaN, too."""
        return self.relative_error <= self.tolerance
