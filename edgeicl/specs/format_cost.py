"""What products with weights of one format take on a device, measured."""

from __future__ import annotations

from pydantic import Field

from edgeicl.specs.quant_plan import Format
from edgeicl.specs.spec import Spec


class FormatCost(Spec):
    """Time of a matrix in one format, by its weights: a picosecond a weight is 0.12 ms for OPT-125M."""

    format: Format
    decode_ps_per_weight: float = Field(
        gt=0.0, description="Picoseconds of each weight in a product with a single token."
    )
    prompt_ps_per_weight: float = Field(
        gt=0.0, description="Picoseconds of each weight and token in a product with the tokens of a prompt."
    )
