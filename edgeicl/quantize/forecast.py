"""What the quantize stage will choose for a target, before anything is measured.

Which groups will get more bits is not known before importance is measured; what all of them together take
hardly depends on it, because the best plan uses up the budget. So the allocation is the stage's own, and the
loss of a group is that of weights as trained ones are, drawn from a normal distribution: their relative squared
error in the format, times the number of the group's weights.

What a limit is set on is met. With the built-in models, what none is set on came out up to 7 % beside it; and
where whole blocks share a format (Jaccard) a model of few layers may end a block away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from edgeicl.errors import BudgetError
from edgeicl.models.anatomy import EMBEDDING, HEAD, Anatomy, WeightGroup
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.model_folder import model_config
from edgeicl.numerics.cache_rounding import cache_codes, channel_scales, read_back
from edgeicl.quantize.allocation import Number, SizeTable, merged, plan_bytes, plan_loss
from edgeicl.quantize.block_losses import typical_error, typical_numbers
from edgeicl.quantize.cache import HEADROOM
from edgeicl.quantize.cache_choice import Choice, PlanSpaces, best_choice, candidates
from edgeicl.quantize.measured_importance import measured_groups, unmeasured
from edgeicl.quantize.plan_space import Plan, PlanSpace
from edgeicl.quantize.stage_inputs import calibrated, given_plan, require_fit, sized
from edgeicl.specs.forecast import ForecastSize, TargetForecast
from edgeicl.specs.quant_plan import CacheBits, Format
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.target import Target
from edgeicl.store import Store


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
    anatomy = anatomy_of(model_config(student))
    groups = anatomy.groups
    spaces, deviations = sized(
        recipe, target, student=student, prefix_tokens=prefix_tokens, prefix_ids=prefix_ids
    )
    best, error, full = None, None, recipe.emit.head == "full"
    given = given_plan(
        recipe, target, spaces, student=student, student_digest=student_digest, base_folder=base_folder
    )
    try:
        require_fit(recipe, spaces, given)
        if given is None:
            best = _typical_choice(groups, anatomy, spaces, full_head=full)
    except BudgetError as raised:
        error = raised
    source = calibrated(
        recipe,
        target,
        student=student,
        student_digest=student_digest or "unknown",
        base_folder=base_folder,
        prefix=prefix,
    )
    shown = given or best
    cache_bits = min(spaces) if shown is None else shown.cache_bits
    space = spaces[cache_bits]
    asked = sum(map(len, measured_groups(source, space.groups_by_format).values()))
    known = student_digest is not None
    to_measure = unmeasured(source, space.groups_by_format, store=store) if known else asked
    budget = space.budget if shown is None else shown.space.budget
    attention = "tiled" if shown is None else shown.space.prompt_attention
    uniform = space.reading_prompts(None, attention) or space
    found = TargetForecast(
        target=target.name,
        artifact_limit_bytes=budget.artifact_limit_bytes,
        resident_limit_bytes=budget.resident_limit_bytes,
        decode_limit_ms=target.budget.decode_ms,
        first_token_limit_ms=target.budget.first_token_ms,
        prompt_tokens=None if space.first is None else space.first.prompt_tokens,
        prompt_copy_bytes=budget.prompt_copy_bytes,
        given=None if given is None else _size("given", given.space, given.plan, given.cache_bits),
        best=None if best is None else _size("best", best.space, best.plan, best.cache_bits),
        smallest=_extreme("least of each", spaces, min),
        largest=_extreme("most of each", spaces, max),
        uniform=tuple(
            _size(f"uniform {f}", uniform, each, cache_bits) for f, each in uniform.uniform().items()
        ),
        other_tensor_bytes=budget.other_tensor_bytes,
        other_file_bytes=budget.other_file_bytes,
        prefix_bytes=budget.prefix_bytes,
        cache_bits=cache_bits,
        kv_cache_bytes=budget.kv_cache_bytes,
        activation_bytes=budget.prefill_bytes,
        attention_score_bytes=budget.attention_score_bytes,
        runtime_overhead_bytes=budget.runtime_overhead_bytes,
        groups=len(groups),
        to_measure=to_measure,
        measured=asked - to_measure,
        calibration_tokens=sum(map(len, source.sequences)),
        stages=(),
        deviations=deviations,
        problem=None if error is None else str(error),
    )
    return found, error


def _typical_choice(
    groups: Sequence[WeightGroup], anatomy: Anatomy, spaces: PlanSpaces, *, full_head: bool
) -> Choice:
    """The bits of the cache and the plan that the least is lost with, as `typical_losses` has it.

    A rounded key or value is as wrong as one that comes of weights so rounded: it counts as they would.
    """
    losses = typical_losses(groups, next(iter(spaces.values())), full_head=full_head)
    weights = 2 * anatomy.layers * anatomy.kv_width * anatomy.hidden
    return best_choice(
        candidates(spaces, losses),
        lambda choice: plan_loss(choice.plan, losses) + weights * typical_cache_error(choice.cache_bits),
    )


def typical_cache_error(bits: CacheBits) -> float:
    """Relative squared error of normally distributed keys and values in `bits`: none worth counting in 16."""
    if bits != 8:
        return 0.0
    sample = typical_numbers()
    scales = channel_scales(np.float32(HEADROOM) * np.abs(sample).max(axis=0))
    return float(np.square(sample - read_back(cache_codes(sample, scales), scales)).mean())


def typical_losses(
    groups: Sequence[WeightGroup], space: PlanSpace, *, full_head: bool
) -> dict[str, dict[Format, float]]:
    """Group -> format -> relative squared error of normally distributed weights, times the group's weights.

    Of what is the head, times the number of layers: its error reaches the logits as it is, that of
    a layer as one of so many contributions.
    """
    own = any(group.name == HEAD for group in groups)
    head = None if not full_head else HEAD if own else EMBEDDING
    layers = len({group.layer for group in groups if group.layer is not None})
    counts = {
        group.name: group.shape[0] * group.shape[1] * (layers if group.name == head else 1) for group in groups
    }
    return {
        name: {f: counts[name] * typical_error(f) for f in offered} for name, offered in space.stored.items()
    }


class Choose(Protocol):
    """`min` or `max`."""

    def __call__(self, values: Iterable[Number], /) -> Number: ...


def _size(label: str, space: PlanSpace, plan: Plan, cache_bits: CacheBits) -> ForecastSize:
    artifact = space.budget.artifact_bytes(plan_bytes(plan, space.stored))
    resident = space.budget.resident_bytes(plan_bytes(plan, space.held))
    return ForecastSize(
        label=label,
        cache_bits=cache_bits,
        artifact_bytes=artifact,
        resident_bytes=resident,
        decode_ms=space.decode_ms(plan),
        first_token_ms=space.first_token_ms(plan),
        fits=all(each.total(plan_bytes(plan, each.sizes)) <= each.value for each in space.asked.values()),
    )


def _extreme(label: str, spaces: PlanSpaces, choose: Choose) -> ForecastSize:
    """The most or the least of each figure, whatever the cache and the way to read prompts: of no one plan."""

    def groups(sizes: SizeTable, space: PlanSpace) -> int:
        return sum(choose(by_format.values()) for by_format in merged(sizes, space.units).values())

    each = [s for space in spaces.values() for s in space.alternatives]
    decode = [s.decode.ms_of_bytes(groups(s.decode.reads, s)) for s in each if s.decode is not None]
    first = [s.first.ms_of(groups(s.first.nanoseconds, s)) for s in each if s.first is not None]
    return ForecastSize(
        label=label,
        cache_bits=next(iter(spaces)) if len(spaces) == 1 else None,
        artifact_bytes=choose([s.budget.artifact_bytes(groups(s.stored, s)) for s in each]),
        resident_bytes=choose([s.budget.resident_bytes(groups(s.held, s)) for s in each]),
        decode_ms=choose(decode) if decode else None,
        first_token_ms=choose(first) if first else None,
        fits=None,
    )
