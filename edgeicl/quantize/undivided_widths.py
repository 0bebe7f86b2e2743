"""Groups whose width no block divides, such as 172: they are not quantized, and the artifact says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeicl.models.anatomy import WeightGroup
from edgeicl.specs.manifest import Deviation
from edgeicl.specs.quant_plan import Format


def left_in_floating_point(
    formats: Sequence[Format], offered: Mapping[WeightGroup, Sequence[Format]]
) -> tuple[Deviation, ...]:
    """A deviation for the groups that blocks of none of the target's quantized formats divide, if any."""
    quantized = [format_ for format_ in formats if format_.quantized]
    left = [group for group, fitting in offered.items() if quantized and not any(f.quantized for f in fitting)]
    if not left:
        return ()
    blocks = sorted({format_.block_size for format_ in quantized if isinstance(format_.block_size, int)})
    return (
        Deviation(
            what="quantized weights",
            where=", ".join(f"{group.name} ({group.shape[1]} columns)" for group in left),
            asked=f"one of {', '.join(map(str, quantized))}",
            got=f"one of {', '.join(map(str, dict.fromkeys(f for group in left for f in offered[group])))}",
            why=f"no block of {', '.join(map(str, blocks))} divides the columns, or those of a group that has "
            "the same format",
        ),
    )
