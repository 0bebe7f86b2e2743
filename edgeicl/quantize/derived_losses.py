"""Sensitivity measured in few formats, and derived for the others by how far they change a group's outputs.

While errors are small, KL is quadratic in the change of a group's outputs, and what rounding changes is much
the same noise in every format, more of it or less. So a loss goes over from one format of a group to another in
the ratio of their mean squared changes, which cost one product instead of all layers behind. In 2 bits errors
are not small, and are measured apart. How far that is from measuring: docs/results/importance.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import log2

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from edgeicl.models.anatomy import EMBEDDING
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.rounded_inputs import product
from edgeicl.quantize.solver import SolverName, knowing_inputs
from edgeicl.quantize.stored_weights import stored_values
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.importance import FormatLosses, ImportanceTable
from edgeicl.specs.quant_plan import Format

Changes = dict[Format, dict[str, float]]
"""Format -> group -> mean squared change of the group's outputs."""

_NARROW_BITS = 2
_USUAL_BLOCK = 128
_MOST_TOKENS, _MOST_OUTPUTS = 512, 512


def measured_format(format_: Format, offered: Sequence[Format]) -> Format:
    """The one of a group's formats that is measured for `format_`: itself, if there is no better one.

    One of 2 bits for those of 2, else one of 4 bits or the fewest there are: symmetric, blocks of about 128.
    """
    if format_.bits == 32:
        return format_
    narrow = format_.bits == _NARROW_BITS
    alike = [f for f in offered if f.quantized and (f.bits == _NARROW_BITS) is narrow]
    return min(alike, key=_strangeness, default=format_)


def _strangeness(format_: Format) -> tuple[bool, int, bool, float, str]:
    blocks = 0.0 if format_.by_row else abs(log2(format_.block_of(_USUAL_BLOCK) / _USUAL_BLOCK))
    return format_.by_row, format_.bits, not format_.symmetric, blocks, str(format_)


def output_changes(
    weights: StudentWeights,
    decoder: CalibratedDecoder,
    offered: Mapping[str, Sequence[Format]],
    *,
    solver: SolverName = "rtn",
    advance: Callable[[int], None] = lambda n: None,
) -> Changes:
    """Of every group in each of its formats, with all others as they are; at up to 512 tokens and outputs.

    A table's change is that of the logits where it is the head, else that of the rows that tokens look up.
    `advance(1)` after each.
    """
    found: Changes = {}

    def note(group: str, inputs: Tensor) -> None:
        """`inputs` [T, K]."""
        quantizer = knowing_inputs(solver, group, inputs)
        rows = inputs[_spread(len(inputs), _MOST_TOKENS)]
        matrix = weights.matrices[group]
        matrix = np.ascontiguousarray(matrix[_spread(len(matrix), _MOST_OUTPUTS)])
        exact = F.linear(rows, torch.from_numpy(matrix))
        for format_ in offered[group]:
            stored = stored_values(matrix, format_, quantizer)
            changed = product(rows, decoder.matrix_of(group, stored, format_))
            found.setdefault(format_, {})[group] = float((changed - exact).double().square().mean())
            advance(1)

    hidden = decoder.embed(before=note)
    for index in range(decoder.layers):
        hidden = decoder.layer(index, hidden, before=note)
    inputs = decoder.head_inputs(hidden, before=note)
    if decoder.head is not None:
        note(decoder.head, inputs)
    if decoder.head != EMBEDDING:
        table = weights.matrices[EMBEDDING]
        tokens = np.unique(decoder.tokens.numpy())
        looked_up = table[tokens[_spread(len(tokens), _MOST_OUTPUTS)]]
        quantizer = knowing_inputs(solver, EMBEDDING, None)
        for format_ in offered[EMBEDDING]:
            change = stored_values(looked_up, format_, quantizer) - looked_up
            found.setdefault(format_, {})[EMBEDDING] = float(np.square(change, dtype=np.float64).mean())
            advance(1)
    return found


def derived_table(
    measured: ImportanceTable,
    groups_by_format: Mapping[Format, Sequence[str]],
    changes: Changes,
    *,
    measure: Callable[[str, Format], float],
) -> ImportanceTable:
    """The table of all formats from one of those that were measured, and what each format changes.

    A loss below 0, which only what changes next to nothing has, counts as 0. `measure` is asked for the loss of
    a group in a format where the measured format changes nothing, so that nothing follows.
    """

    def derived(name: str, format_: Format, other: Format) -> float:
        change, known = changes[format_][name], changes[other][name]
        if known == 0.0:
            return measure(name, format_) if change > 0.0 else 0.0
        return max(0.0, losses[name][other]) * change / known

    losses, offered = measured.losses(), formats_of_groups(groups_by_format)
    entries = []
    for format_, groups in groups_by_format.items():
        own = {name: losses[name][format_] for name in groups if format_ in losses.get(name, {})}
        others = {name: measured_format(format_, offered[name]) for name in groups if name not in own}
        own |= {name: derived(name, format_, other) for name, other in others.items()}
        entries.append(
            FormatLosses(format=format_, losses={name: own[name] for name in groups}, derived_from=others)
        )
    itself = [e.format for e in entries if e.format.quantized and e.losses.keys() > e.derived_from.keys()]
    kept = " and ".join(sorted(map(str, itself)))
    unit = f"{measured.unit}; measured in {kept}, other formats by the change of the outputs"
    return measured.model_copy(update={"formats": tuple(entries), "unit": unit})


def formats_of_groups(groups_by_format: Mapping[Format, Sequence[str]]) -> dict[str, list[Format]]:
    """Group -> its formats."""
    found: dict[str, list[Format]] = {}
    for format_, names in groups_by_format.items():
        for name in names:
            found.setdefault(name, []).append(format_)
    return found


def _spread(count: int, most: int) -> NDArray[np.int64]:
    """At most so many numbers below `count`, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))
