"""Which of a target's formats a weight group may have."""

from __future__ import annotations

from collections.abc import Sequence

from edgeicl.models.anatomy import WeightGroup
from edgeicl.specs.quant_plan import Format


def offered_formats(group: WeightGroup, formats: Sequence[Format]) -> list[Format]:
    """Those whose blocks divide the group's rows; all, where none does.

    The last block of a row of 172, say, is then filled up with zeros (`numerics.affine`). The bytes of a
    format count what that takes, so a plan takes it for what it is.
    """
    whole = [f for f in formats if f.block_size is None or group.shape[1] % f.block_size == 0]
    return whole if any(f.quantized for f in whole) else list(formats)
