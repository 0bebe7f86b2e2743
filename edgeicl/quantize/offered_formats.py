"""Which of a target's formats a weight group may have."""

from __future__ import annotations

from collections.abc import Sequence

from edgeicl.models.anatomy import EMBEDDING, WeightGroup
from edgeicl.specs.quant_plan import Format


def offered_formats(group: WeightGroup, formats: Sequence[Format]) -> list[Format]:
    """Those whose blocks divide the group's rows; all, where none does. No table is read by integer products.

    The last block of a row of 172, say, is then filled up with zeros (`numerics.affine`). The bytes of a
    format count what that takes, so a plan takes it for what it is.
    """
    columns = group.shape[1]
    possible = [f for f in formats if not (f.by_row and group.name == EMBEDDING)]
    whole = [f for f in possible if columns % f.block_of(columns) == 0]
    return whole if any(f.quantized and not f.by_row for f in whole) else possible
