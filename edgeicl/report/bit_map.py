"""The quant plan as a grid: a row per layer, a column per kind of weight group."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgeicl.specs.quant_plan import Format, QuantPlan

_LAYER_GROUP = re.compile(r"^layers\.(\d+)\.(.+)$")


@dataclass(frozen=True)
class BitMap:
    """`rows` hold a name and one format (or None) per column; groups outside the layers come last."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Format | None, ...]], ...]
    outside: tuple[tuple[str, Format], ...]


def bit_map(plan: QuantPlan) -> BitMap:
    """The grid of `plan`, layers by number, columns in the order of their first group."""
    layers: dict[int, dict[str, Format]] = {}
    columns: list[str] = []
    outside: list[tuple[str, Format]] = []
    for entry in plan.groups:
        match = _LAYER_GROUP.match(entry.group)
        if match is None:
            outside.append((entry.group, entry.format))
            continue
        layers.setdefault(int(match[1]), {})[match[2]] = entry.format
        if match[2] not in columns:
            columns.append(match[2])
    rows = tuple(
        (f"layer {number}", tuple(layers[number].get(column) for column in columns))
        for number in sorted(layers)
    )
    return BitMap(tuple(columns), rows, tuple(outside))
