"""What it costs to store each weight group in one format: the table that an allocation goes by."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeicl.specs.quant_plan import Format
from edgeicl.specs.spec import Spec

ImportanceMethod = Literal["sensitivity", "jaccard", "cosine", "zscore"]

MeasuredFormats = Literal["all", "one_per_width"]
"""See `specs.recipe.Quantize.measured_formats`."""


class FormatLosses(Spec):
    """Loss of every group that the format fits, one group at a time."""

    format: Format
    losses: dict[str, float] = Field(description="Group -> predicted loss, in the table's unit.")
    derived_from: dict[str, Format] = Field(
        {},
        description="Group -> the format that was measured instead; other groups were themselves.",
    )


class ImportanceTable(Spec):
    """`importance.json`."""

    version: Literal[2] = 2
    method: ImportanceMethod
    unit: str
    calibration_sequences: int
    calibration_tokens: int
    blocks: tuple[float, ...] | None = Field(
        None, description="Importance of each decoder block, 0 to 1, where the method rates blocks."
    )
    formats: tuple[FormatLosses, ...]

    def losses(self) -> dict[str, dict[Format, float]]:
        """Group -> format -> loss."""
        table: dict[str, dict[Format, float]] = {}
        for entry in self.formats:
            for group, loss in entry.losses.items():
                table.setdefault(group, {})[entry.format] = loss
        return table
