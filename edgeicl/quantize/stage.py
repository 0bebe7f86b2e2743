"""The quantize stage: importance, the plan within the target's bytes, and the weights rounded by it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgeicl.models.anatomy import WeightGroup
from edgeicl.quantize.allocation import LossTable, merged, plan_bytes
from edgeicl.quantize.block_losses import importance
from edgeicl.quantize.cache import HEADROOM, RoundedCache, rounded_cache
from edgeicl.quantize.cache_choice import Choice, PlanSpaces, best_choice, candidates
from edgeicl.quantize.curve import size_curve
from edgeicl.quantize.input_steps import integer_products
from edgeicl.quantize.measured_importance import Student, importance_table
from edgeicl.quantize.plan_loss import PlanLoss
from edgeicl.quantize.plan_space import Plan, PlanSpace
from edgeicl.quantize.reference_plans import reference_plans
from edgeicl.quantize.refinement import refine
from edgeicl.quantize.stage_inputs import calibrated, given_plan, require_fit, sized
from edgeicl.quantize.weights_file import write_weights
from edgeicl.specs.importance import ImportanceTable
from edgeicl.specs.prefix import read_prefix_source
from edgeicl.specs.quant_plan import ActivationBits, CacheBits, GroupPlan, QuantPlan
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.target import Target
from edgeicl.store import StageOutput, Store

log = logging.getLogger(__name__)


def quantize(
    recipe: Recipe,
    target: Target,
    *,
    student: Path,
    student_digest: str,
    store: Store,
    base_folder: Path,
    prefix: Path | None = None,
) -> StageOutput:
    """The student's weights rounded by a plan that fits the target.

    `prefix` is a file of `specs.prefix`: what stands before every query. Its bytes are of the budget, and
    importance is measured behind its first set.

    The output holds `plan.json`, `importance.json`, `curve.json`, `deviations.json` and
    `weights.safetensors`: `<group>.codes`, `.scales` and, where asymmetric, `.zero_points` of quantized
    groups, `<group>.weight` of floating-point ones, `<group>.bias`, `LABEL_HEAD` where that is the head, scales
    of an 8-bit cache (`cache.RoundedCache`), `<group>.input_step` of integer products that round all tokens
    alike, and all other parameters by their names.

    Raises:
        SpecError: a plan file that doesn't suit the model or the target.
        BudgetError: no plan fits, or the plan file doesn't. Both before anything is measured.
        DataError: a model that is unsupported, or a context that doesn't hold the prefix and a query behind
            it.
    """
    settings = recipe.quantize
    sets = read_prefix_source(prefix) if prefix else []
    spaces, deviations = sized(
        recipe,
        target,
        student=student,
        prefix_tokens=[*map(len, sets)],
        prefix_ids=any(values.ndim == 1 for values in sets),
    )
    edited = given_plan(
        recipe, target, spaces, student=student, student_digest=student_digest, base_folder=base_folder
    )
    require_fit(recipe, spaces, edited)

    source = calibrated(
        recipe, target, student=student, student_digest=student_digest, base_folder=base_folder, prefix=prefix
    )
    table, digests = importance_table(source, next(iter(spaces.values())).groups_by_format, store=store)
    inputs = {
        "importance": digests,
        "deviations": [deviation.model_dump(mode="json") for deviation in deviations],
        "student": student_digest,
        "solver": settings.solver,
        "refine": settings.refine,
        "rules": [settings.top_k, settings.lsaq.model_dump()],  # of the curve's point of LSAQ
        "plan": {name: f.model_dump(mode="json") for name, f in edited.plan.items()} if edited else None,
        "plan_reads_prompts": edited and [str(edited.space.prompt_format), edited.space.prompt_attention],
        "cache": [edited and edited.cache_bits, target.cache_bits, HEADROOM],
        "device": [target.provider, target.activation_bits],
        "formats": [f.model_dump(mode="json") for f in target.formats],
        "budget": target.budget.model_dump(mode="json"),
        "calibration": target.calibration and target.calibration.model_dump(mode="json"),
        "prompts": [target.prompt_tokens, target.prompt_format and str(target.prompt_format)],
        "target": [target.name, target.context_tokens, target.runtime_overhead_bytes],
        "head_tokens": source.head_tokens,
        "file_bytes": [space.budget.other_file_bytes for space in spaces.values()],
    }

    caches = {bits: rounded_cache(source, bits, store=store) for bits in spaces}
    planning = _Planning(source, table, spaces, caches, settings.refine, target.activation_bits)

    def build(folder: Path) -> None:
        if store.workers.is_writer:
            planning.write(folder, edited)
            (folder / "deviations.json").write_text(json.dumps(inputs["deviations"], indent=1) + "\n")

    return store.run("quantize", inputs, build)


@dataclass(frozen=True)
class _Planning:
    """What the plan is made from, and its files."""

    student: Student
    table: ImportanceTable
    spaces: PlanSpaces
    caches: Mapping[CacheBits, RoundedCache]
    refine_rounds: int
    activation_bits: ActivationBits

    def write(self, folder: Path, edited: Choice | None) -> None:
        """Writes plan, importance, curve and weights; the plan is `edited` if there is one."""
        losses = self.table.losses()
        measures = {
            bits: self.student.plan_loss(None if bits == 32 else self.caches[bits]) for bits in self.caches
        }
        choice = edited or best_choice(
            candidates(self.spaces, losses), lambda found: measures[found.cache_bits](found.plan)
        )
        plan, space = choice.plan, choice.space
        cache, measure = self.caches[choice.cache_bits], measures[choice.cache_bits]
        refinement: tuple[float, ...] = ()
        if edited is None and self.refine_rounds:
            plan, refinement = self._refined(plan, space, measure)
        curve = size_curve(
            plan,
            losses,
            space,
            loss_unit=self.table.unit,
            measure=measure,
            rules=reference_plans(self.student.groups, space, self.student.block_similarities),
            refinement=refinement,
        )
        for name, spec in (
            ("plan.json", self._described(plan, space, cache.bits, measure)),
            ("importance.json", self.table),
            ("curve.json", curve),
        ):
            (folder / name).write_text(spec.model_dump_json(indent=1) + "\n")
        write_weights(
            folder / "weights.safetensors",
            self.student.weights,
            self.student.stored(plan),
            plan,
            head_tokens=self.student.head_tokens,
            cache_scales=cache.tensors(),
            input_steps=self._input_steps(plan, space),
            activation_bits=self.activation_bits,
            prompt_format=space.prompt_format,
        )

    def _input_steps(self, plan: Plan, space: PlanSpace) -> Mapping[str, float]:
        """Of the groups that an integer product reads; nothing is measured where there is none."""
        products = integer_products(self.student.groups, plan, space.prompt_format)
        steps = self.student.decoder.input_steps if products else {}
        found = {group: step for group, step in steps.items() if group in products}
        if products:
            log.info("%d of %d integer products round all tokens in one step", len(found), len(products))
        return found

    def _refined(self, plan: Plan, space: PlanSpace, loss: PlanLoss) -> tuple[Plan, tuple[float, ...]]:
        """The best plan of groups after refinement, and the losses that were measured on the way."""
        found = refine(
            space.by_unit(plan),
            merged(space.stored, space.units),
            space.of_units(space.limits),
            measure=lambda one: loss(space.of_groups(one)),
            near=lambda one, other: loss.near(space.of_groups(one), space.of_groups(other)),
            rounds=self.refine_rounds,
        )
        return space.of_groups(found.plan), found.losses

    def _described(self, plan: Plan, space: PlanSpace, cache_bits: CacheBits, measure: PlanLoss) -> QuantPlan:
        losses = self.table.losses()
        budget = space.budget
        stored_bytes = plan_bytes(plan, space.stored)
        reads_prompts = None
        if space.prompt_format is not None:
            reads_prompts = measure.reading_prompts(plan, space.prompt_format)
            log.info("layers' weights are stored once more, as %s, to read prompts with", space.prompt_format)
        return QuantPlan(
            model_digest=self.student.digest,
            importance=self.table.method,
            groups=tuple(
                GroupPlan(group=group.name, format=plan[group.name], importance=self._importance(group, losses))
                for group in self.student.groups
            ),
            predicted_weight_bytes=stored_bytes + budget.other_tensor_bytes + budget.prompt_copy_bytes,
            predicted_artifact_bytes=budget.artifact_bytes(stored_bytes),
            prompt_format=space.prompt_format,
            prompt_attention=space.prompt_attention,
            prompt_loss=reads_prompts,
            predicted_first_token_ms=space.first_token_ms(plan),
            predicted_decode_ms=space.decode_ms(plan),
            predicted_resident_bytes=budget.resident_bytes(plan_bytes(plan, space.held)),
            cache_bits=cache_bits,
            activation_bits=self.activation_bits,
        )

    def _importance(self, group: WeightGroup, losses: LossTable) -> float:
        """That of the block; or what the group loses in the worst of its formats."""
        if self.table.blocks is not None:
            return importance(group, self.table.blocks)
        return max(losses[group.name].values())
