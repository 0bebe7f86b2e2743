"""How fast a chip reads prompts, from published speeds: by whether its cores multiply 8-bit integer matrices.

Reading a prompt is bound by arithmetic. Published speeds say how many operations a second kernels of 4 and 8
bits reach; cores with i8mm reach several times what others do, and models of other sizes hardly differ.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgeicl.bench.prediction.published import PublishedSpeed, published_speeds
from edgeicl.specs.prediction import Interval


def flops_per_second(*, i8mm: bool) -> Interval | None:
    """Median over chips of their medians, with the least and the most of them; None where fewer than two."""
    return chip_interval([s for s in published_speeds() if s.i8mm == i8mm])


def chip_interval(speeds: Sequence[PublishedSpeed]) -> Interval | None:
    """Of the chips' medians."""
    by_chip: dict[str, list[float]] = {}
    for speed in speeds:
        if (rate := speed.prefill_flops_per_second) is not None:
            by_chip.setdefault(speed.soc, []).append(rate)
    rates = [float(np.median(found)) for found in by_chip.values()]
    if len(rates) < 2:
        return None
    return Interval(value=float(np.median(rates)), low=min(rates), high=max(rates))
