"""What the quantize stage will choose for a target, before anything is measured.

Which groups will get more bits is not known before importance is measured; what all of them together take
hardly depends on it, because the best plan uses up the budget. So the allocation is the stage's own, and the
loss of a group is that of weights as trained ones are, drawn from a normal distribution: their relative squared
error in the format, times the number of the group's weights.

What a limit is set on is met. With the built-in models, what none is set on came out up to 7 % beside it; and
where whole blocks share a format (Jaccard) a model of few layers may end a block away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from edgeicl.errors import BudgetError
from edgeicl.models.anatomy import EMBEDDING, HEAD, WeightGroup
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.model_folder import model_config
from edgeicl.quantize.allocation import merged, plan_bytes
from edgeicl.quantize.block_losses import relative_error
from edgeicl.quantize.measured_importance import unmeasured
from edgeicl.quantize.plan_space import Plan, PlanSpace
from edgeicl.quantize.stage_inputs import calibrated, edited_plan, sized
from edgeicl.specs.forecast import ForecastSize, TargetForecast
from edgeicl.specs.quant_plan import Format
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.target import Target
from edgeicl.store import Store

_SAMPLE = (64, 1024)  # rows of the largest block that a format may have, some 65,000 weights: error within 1 %


def forecast(
    recipe: Recipe,
    target: Target,
    *,
    student: Path,
    student_digest: str | None,
    prefix: Path | None,
    prefix_tokens: Sequence[int],
    prefix_ids: bool,
    store: Store,
    base_folder: Path,
) -> tuple[TargetForecast, BudgetError | None]:
    """The sizes of the plans that there are, and the error that the build would end with.

    Args:
        student: Folder of the student; where that is yet to be trained, of the model that it is made from.
        student_digest: Of its weights; None where they are yet to be trained.
        prefix: As for `quantize`; None where it is yet to be made.
        prefix_tokens, prefix_ids: See `sized`.

    Raises:
        SpecError, DataError: as `quantize`.
    """
    groups = anatomy_of(model_config(student)).groups
    space, deviations = sized(
        recipe, target, student=student, prefix_tokens=prefix_tokens, prefix_ids=prefix_ids
    )
    best, error, full = None, None, recipe.emit.head == "full"
    try:
        best = edited_plan(
            recipe, target, space, student=student, student_digest=student_digest, base_folder=base_folder
        ) or space.best(typical_losses(groups, space, full_head=full), space.limits)
    except BudgetError as raised:
        error = raised
    missing = list(target.formats)
    if student_digest is not None:
        source = calibrated(
            recipe,
            target,
            student=student,
            student_digest=student_digest,
            base_folder=base_folder,
            prefix=prefix,
        )
        missing = unmeasured(source, space.groups_by_format, store=store)
    offered = [format_ for by_format in space.stored.values() for format_ in by_format]
    to_measure = sum(format_ in missing for format_ in offered)
    budget = space.budget
    found = TargetForecast(
        target=target.name,
        artifact_limit_bytes=budget.artifact_limit_bytes,
        resident_limit_bytes=budget.resident_limit_bytes,
        decode_limit_ms=target.budget.decode_ms,
        best=None if best is None else _size("best", space, best),
        smallest=_extreme("smallest", space, min),
        largest=_extreme("largest", space, max),
        uniform=tuple(_size(f"uniform {f}", space, plan) for f, plan in space.uniform().items()),
        other_tensor_bytes=budget.other_tensor_bytes,
        other_file_bytes=budget.other_file_bytes,
        prefix_bytes=budget.prefix_bytes,
        kv_cache_bytes=budget.kv_cache_bytes,
        activation_bytes=budget.prefill_bytes,
        runtime_overhead_bytes=budget.runtime_overhead_bytes,
        groups=len(groups),
        to_measure=to_measure,
        measured=len(offered) - to_measure,
        stages=(),
        deviations=deviations,
        problem=None if error is None else str(error),
    )
    return found, error


def typical_losses(
    groups: Sequence[WeightGroup], space: PlanSpace, *, full_head: bool
) -> dict[str, dict[Format, float]]:
    """Group -> format -> relative squared error of normally distributed weights, times the group's weights.

    Of what is the head, times the number of layers: its error reaches the logits as it is, that of
    a layer as one of so many contributions.
    """
    sample = np.random.default_rng(0).standard_normal(_SAMPLE).astype(np.float32)
    errors = {format_: relative_error(sample, format_) for format_ in space.formats}
    own = any(group.name == HEAD for group in groups)
    head = None if not full_head else HEAD if own else EMBEDDING
    layers = len({group.layer for group in groups if group.layer is not None})
    counts = {
        group.name: group.shape[0] * group.shape[1] * (layers if group.name == head else 1) for group in groups
    }
    return {name: {f: counts[name] * errors[f] for f in offered} for name, offered in space.stored.items()}


def _size(label: str, space: PlanSpace, plan: Plan) -> ForecastSize:
    stored, held = plan_bytes(plan, space.stored), plan_bytes(plan, space.held)
    return _sized(label, space, stored, held, space.decode_ms(plan))


def _extreme(label: str, space: PlanSpace, choose: Callable[[Iterable[int]], int]) -> ForecastSize:
    stored, held = (
        sum(choose(by_format.values()) for by_format in merged(sizes, space.units).values())
        for sizes in (space.stored, space.held)
    )
    return _sized(label, space, stored, held, _extreme_ms(space, choose))


def _extreme_ms(space: PlanSpace, choose: Callable[[Iterable[int]], int]) -> float | None:
    if space.decode is None:
        return None
    by_unit = merged(space.decode.reads, space.units).values()
    return space.decode.ms_of_bytes(sum(choose(by_format.values()) for by_format in by_unit))


def _sized(
    label: str, space: PlanSpace, stored_bytes: int, held_bytes: int, decode_ms: float | None
) -> ForecastSize:
    budget = space.budget
    artifact, resident = budget.artifact_bytes(stored_bytes), budget.resident_bytes(held_bytes)
    limits = (
        (artifact, budget.artifact_limit_bytes),
        (resident, budget.resident_limit_bytes),
        (decode_ms, None if space.decode is None else space.decode.limit_ms),
    )
    return ForecastSize(
        label=label,
        artifact_bytes=artifact,
        resident_bytes=resident,
        decode_ms=decode_ms,
        fits=all(limit is None or taken is None or taken <= limit for taken, limit in limits),
    )
