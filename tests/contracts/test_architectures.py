"""Every architecture has its anatomy, its lowering and its second implementation, or none of them."""

from __future__ import annotations

from edgeicl.emit.lowering import LOWERINGS
from edgeicl.models.architectures.table import ARCHITECTURES
from edgeicl.quantize.bodies.table import BODIES


def test_one_row_and_one_lowering_for_each() -> None:
    assert ARCHITECTURES.keys() == LOWERINGS.keys() == BODIES.keys()
