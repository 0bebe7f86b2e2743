"""Limits that no plan keeps at once: which of them conflict, and what each would have to be.

A conflict is a set of limits that no plan keeps, though one keeps any fewer of them. What is told to be enough
is the least that some plan takes with every other limit as it stands; of several that have to be raised, each
with those raised before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from edgeicl.errors import BudgetError
from edgeicl.quantize.allocation import Limit, SizeTable, plan_bytes
from edgeicl.quantize.first_token import ROOM_FOR_STEPS
from edgeicl.quantize.plan_space import AskedLimit, Plan, PlanSpace
from edgeicl.specs.byte_size import format_byte_size


@dataclass(frozen=True)
class _WayOut:
    """Limits to be raised, the least that each would have to be, and the plan that takes it.

    `needed` has bytes or milliseconds; `plan` a format for every group.
    """

    space: PlanSpace
    plan: Plan
    needed: dict[str, float]

    @property
    def cost(self) -> float:
        """By how many times the limits grow, all together."""
        asked = self.space.asked
        return sum(needed / max(asked[name].value, 1e-9) for name, needed in self.needed.items())


def require_any(spaces: Iterable[PlanSpace]) -> None:
    """BudgetError unless a plan of one of the spaces, or of their alternatives, keeps all limits."""
    every = [each for space in spaces for each in space.alternatives]
    names = tuple(dict.fromkeys(name for space in every for name in space.asked))
    if any(_keeps(space, names) for space in every):
        return
    conflicts = _conflicts(every, names)
    ways = _ways_out(every, names)
    first = ways[0]
    if conflicts == [tuple(first.needed)]:
        first.space.require(first.plan, what=_what(first, every), can_be_edited=False)
    asked, target = {n: each.asked[n] for each in every for n in each.asked}, first.space.budget.target
    told = "; nor ".join(_of_conflict(asked, conflict) for conflict in conflicts)
    needed = {asked[name].unit: value for name, value in reversed(first.needed.items())}
    raise BudgetError(
        f"target {target}: no plan keeps {told}",
        smallest_bytes=int(needed.get("bytes", 0)),
        smallest_ms=needed.get("ms", 0.0),
        next_step=f"of target {target}, set " + ", or ".join(map(_raising, ways)) + _instead(every, conflicts),
    )


def _limits(space: PlanSpace, names: Collection[str]) -> list[Limit]:
    return [asked.limit for name, asked in space.asked.items() if name in names]


def _keeps(space: PlanSpace, names: Collection[str]) -> bool:
    return _least(space, {}, _limits(space, names)) is not None


def _least(space: PlanSpace, sizes: SizeTable, limits: Sequence[Limit]) -> Plan | None:
    """The plan within `limits` that takes the least of `sizes`, any if these are empty; None: there is none."""
    losses = {
        group: {f: float(sizes[group][f]) if sizes else 0.0 for f in formats}
        for group, formats in space.stored.items()
    }
    try:
        return space.best(losses, limits)
    except BudgetError:
        return None


def _conflicts(spaces: Sequence[PlanSpace], names: Sequence[str]) -> list[tuple[str, ...]]:
    """The smallest sets of limits that nothing keeps."""
    found: list[tuple[str, ...]] = []
    for count in range(1, len(names) + 1):
        for some in combinations(names, count):
            known = any(set(conflict) <= set(some) for conflict in found)
            if not known and not any(_keeps(space, some) for space in spaces):
                found.append(some)
    return found


def _ways_out(spaces: Sequence[PlanSpace], names: Sequence[str]) -> list[_WayOut]:
    """For every set of limits of which raising does, of as few as possible, where it takes least."""
    for count in range(1, len(names) + 1):
        found = []
        for raised in combinations(names, count):
            ways = [way for space in spaces if (way := _way_out(space, names, raised)) is not None]
            if ways:
                found.append(min(ways, key=lambda way: way.cost))
        if found:
            return found
    raise AssertionError("with all limits raised there is a plan")


def _way_out(space: PlanSpace, names: Sequence[str], raised: Sequence[str]) -> _WayOut | None:
    """Each limit as low as the others and those raised before it allow; None: the others aren't kept."""
    if not set(raised) <= space.asked.keys():
        return None
    limits = _limits(space, [name for name in names if name not in raised])
    plan: Plan | None = None
    needed: dict[str, float] = {}
    for name in raised:
        sizes = space.asked[name].sizes
        plan = _least(space, sizes, limits)
        if plan is None:
            return None
        taken = plan_bytes(plan, sizes)
        limits.append(Limit(sizes, taken))
        needed[name] = space.asked[name].total(taken)
    assert plan is not None
    return _WayOut(space, plan, needed)


def _what(way: _WayOut, every: Sequence[PlanSpace]) -> str:
    """What to call a plan that takes the least of one thing."""
    ((name, needed),) = way.needed.items()
    kind = "smallest" if way.space.asked[name].unit == "bytes" else "fastest"
    copy = f" with a second copy in {way.space.prompt_format}" if way.space.prompt_format else ""
    least = min(alone.needed[name] for each in every if (alone := _way_out(each, [name], [name])) is not None)
    return f"the {kind} plan of its formats{copy}" + (" that keeps the other limits" if needed > least else "")


def _of_conflict(asked: Mapping[str, AskedLimit], names: Sequence[str]) -> str:
    told = [f"{name} {asked[name].value:.15g}" for name in names]
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} and {told[-1]} at once"


def _raising(way: _WayOut) -> str:
    return " and ".join(
        f"{name} to at least {_figure(way.space, name, needed)}" for name, needed in way.needed.items()
    )


def _figure(space: PlanSpace, name: str, needed: float) -> str:
    if space.asked[name].unit == "bytes":
        return f"{needed:.0f} ({format_byte_size(int(needed))})"
    return f"{needed * ROOM_FOR_STEPS:.4g}"


def _instead(spaces: Sequence[PlanSpace], conflicts: Sequence[Collection[str]]) -> str:
    """What helps beside raising a limit."""
    advised = any(space.first is not None and space.first.copy_advised for space in spaces)
    timed = any("budget.first_token_ms" in conflict for conflict in conflicts)
    return "; or set the target's prompt_format" * (advised and timed) + "; or offer the target other formats"
