"""Refining a plan: groups interact, so what surrounds the allocated plan is measured on whole models.

An allocation adds up losses of units measured one at a time. Each round measures, from the plan as it stands,
every unit in the next smaller and the next larger of its formats. Of those differences the best plan within
the limits is allocated anew, and the best exchanges of one or two units are listed beside it; these few are
measured whole, and the one of least loss is taken if it is below the plan's. Otherwise the plan stays, and
nothing more is tried: the same round would end the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from edgeicl.progress import track
from edgeicl.quantize.allocation import Limit, SizeTable, allocate
from edgeicl.specs.quant_plan import Format

Plan = Mapping[str, Format]

EXCHANGES_MEASURED = 8


@dataclass(frozen=True)
class Refined:
    """A plan and the way to it.

    Args:
        plan: Unit -> format.
        losses: Measured: of the plan to begin with, and after each round that found a better one.
    """

    plan: dict[str, Format]
    losses: tuple[float, ...]


def refine(
    plan: Plan,
    sizes: SizeTable,
    limits: Sequence[Limit],
    *,
    measure: Callable[[Plan], float],
    near: Callable[[Plan, Plan], float],
    rounds: int,
) -> Refined:
    """A plan that keeps the limits, as `plan` does, and whose measured loss is not higher.

    Args:
        plan: Unit -> format.
        sizes: Unit -> format -> bytes, by which formats are neighbours.
        limits: As in `allocate`.
        measure: Loss of a whole plan; of equal plans equal.
        near: Loss of the second plan, one unit away from the first; may be a cheaper estimate of `measure`.
        rounds: At most so many.
    """
    found = dict(plan)
    losses = [measure(found)]
    for number in range(1, rounds + 1):
        around = {unit: _neighbours(format_, sizes[unit]) for unit, format_ in found.items()}
        changes: dict[str, dict[Format, float]] = {unit: {format_: 0.0} for unit, format_ in found.items()}
        with track(f"refining the plan, round {number}", sum(map(len, around.values()))) as advance:
            for unit, formats in around.items():
                for format_ in formats:
                    changes[unit][format_] = near(found, {**found, unit: format_}) - losses[-1]
                    advance(1)
        candidates = [allocate(changes, limits), *_exchanges(found, changes, limits)]
        measured = [(measure(candidate), rank) for rank, candidate in enumerate(candidates)]
        loss, rank = min(measured)
        if loss >= losses[-1]:
            break
        found = candidates[rank]
        losses.append(loss)
    return Refined(found, tuple(losses))


def _neighbours(format_: Format, sizes: Mapping[Format, int]) -> list[Format]:
    """The next smaller and the next larger format."""
    ordered = sorted(sizes, key=lambda other: (sizes[other], str(other)))
    at = ordered.index(format_)
    return ordered[max(0, at - 1) : at] + ordered[at + 1 : at + 2]


def _exchanges(
    plan: Plan, changes: Mapping[str, Mapping[Format, float]], limits: Sequence[Limit]
) -> list[dict[str, Format]]:
    """Plans with one or two units changed that keep the limits, by the sum of their changes; the best few."""
    moves = [(unit, f) for unit, by_format in changes.items() for f in by_format if f != plan[unit]]

    def expected(chosen: tuple[tuple[str, Format], ...]) -> float:
        return sum(changes[unit][format_] for unit, format_ in chosen)

    def promising() -> Iterator[tuple[tuple[str, Format], ...]]:
        for count in (1, 2):
            for chosen in combinations(moves, count):
                apart = len({unit for unit, _ in chosen}) == count
                if apart and expected(chosen) < 0:
                    yield chosen

    kept = []
    for chosen in sorted(promising(), key=expected):
        changed = {**plan, **dict(chosen)}
        if all(limit.kept_by(changed) for limit in limits):
            kept.append(changed)
        if len(kept) == EXCHANGES_MEASURED:
            break
    return kept
