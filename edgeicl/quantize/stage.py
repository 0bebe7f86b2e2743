"""The quantize stage: importance, the plan within the target's bytes, and the weights rounded by it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from edgeicl.models.anatomy import EMBEDDING, LABEL_HEAD, WeightGroup
from edgeicl.quantize.allocation import LossTable, merged, plan_bytes
from edgeicl.quantize.block_losses import importance
from edgeicl.quantize.curve import size_curve
from edgeicl.quantize.measured_importance import Student, importance_table
from edgeicl.quantize.plan_space import Plan, PlanSpace
from edgeicl.quantize.refinement import refine
from edgeicl.quantize.stage_inputs import calibrated, edited_plan, sized
from edgeicl.quantize.stored_weights import announced, tensors_of
from edgeicl.quantize.tensors_file import Announced, TensorsFile
from edgeicl.specs.importance import ImportanceTable
from edgeicl.specs.prefix import read_prefix_source
from edgeicl.specs.quant_plan import GroupPlan, QuantPlan
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.target import Target
from edgeicl.store import StageOutput, Store


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
    groups, `<group>.weight` of floating-point ones, `<group>.bias`, `LABEL_HEAD` where that is the head, and
    all other parameters by their names.

    Raises:
        SpecError: a plan file that doesn't suit the model or the target.
        BudgetError: no plan fits, or the plan file doesn't. Both before anything is measured.
        DataError: a model that is unsupported, or a context that doesn't hold the prefix and a query behind
            it.
    """
    settings = recipe.quantize
    sets = read_prefix_source(prefix) if prefix else []
    space, deviations = sized(
        recipe,
        target,
        student=student,
        prefix_tokens=[*map(len, sets)],
        prefix_ids=any(values.ndim == 1 for values in sets),
    )
    edited = edited_plan(
        recipe, target, space, student=student, student_digest=student_digest, base_folder=base_folder
    )

    source = calibrated(
        recipe, target, student=student, student_digest=student_digest, base_folder=base_folder, prefix=prefix
    )
    table, digests = importance_table(source, space.groups_by_format, store=store)
    inputs = {
        "importance": digests,
        "student": student_digest,
        "solver": settings.solver,
        "refine": settings.refine,
        "plan": {name: f.model_dump(mode="json") for name, f in edited.items()} if edited else None,
        "formats": [f.model_dump(mode="json") for f in target.formats],
        "budget": target.budget.model_dump(mode="json"),
        "calibration": target.calibration and target.calibration.model_dump(mode="json"),
        "target": [target.name, target.context_tokens, target.runtime_overhead_bytes],
        "head_tokens": source.head_tokens,
        "file_bytes": space.budget.other_file_bytes,
    }

    planning = _Planning(source, table, space, settings.refine)

    def build(folder: Path) -> None:
        if store.workers.is_writer:
            planning.write(folder, edited)
            listed = [deviation.model_dump(mode="json") for deviation in deviations]
            (folder / "deviations.json").write_text(json.dumps(listed, indent=1) + "\n")

    return store.run("quantize", inputs, build)


@dataclass(frozen=True)
class _Planning:
    """What the plan is made from, and its files."""

    student: Student
    table: ImportanceTable
    space: PlanSpace
    refine_rounds: int

    def write(self, folder: Path, edited: Plan | None) -> None:
        """Writes plan, importance, curve and weights; the plan is `edited` if there is one."""
        space, losses = self.space, self.table.losses()
        refinement: tuple[float, ...] = ()
        plan = space.best(losses, space.limits) if edited is None else edited
        if edited is None and self.refine_rounds:
            plan, refinement = self._refined(plan)
        curve = size_curve(
            plan,
            losses,
            space,
            loss_unit=self.table.unit,
            measure=self.student.plan_loss,
            refinement=refinement,
        )
        for name, spec in (
            ("plan.json", self._described(plan)),
            ("importance.json", self.table),
            ("curve.json", curve),
        ):
            (folder / name).write_text(spec.model_dump_json(indent=1) + "\n")
        self._write_weights(folder / "weights.safetensors", plan)

    def _write_weights(self, path: Path, plan: Plan) -> None:
        """Groups are rounded and written one at a time."""
        weights, head_tokens = self.student.weights, self.student.head_tokens
        unchanged = dict(weights.others) | {f"{name}.bias": bias for name, bias in weights.biases.items()}
        if head_tokens is not None:
            unchanged[LABEL_HEAD] = weights.matrices[EMBEDDING][list(head_tokens)]
        tensors: dict[str, Announced] = {name: ("F32", values.shape) for name, values in unchanged.items()}
        for group in weights.groups:
            tensors |= announced(group, plan[group.name])
        with TensorsFile(path, tensors) as file:
            for name, values in unchanged.items():
                file.write(name, values)
            for name, stored in self.student.stored(plan):
                for tensor, values in tensors_of(name, stored).items():
                    file.write(tensor, values)

    def _refined(self, plan: Plan) -> tuple[Plan, tuple[float, ...]]:
        """The best plan of groups after refinement, and the losses that were measured on the way."""
        space, loss = self.space, self.student.plan_loss
        found = refine(
            space.by_unit(plan),
            merged(space.stored, space.units),
            space.of_units(space.limits),
            measure=lambda one: loss(space.of_groups(one)),
            near=lambda one, other: loss.near(space.of_groups(one), space.of_groups(other)),
            rounds=self.refine_rounds,
        )
        return space.of_groups(found.plan), found.losses

    def _described(self, plan: Plan) -> QuantPlan:
        losses = self.table.losses()
        budget = self.space.budget
        stored_bytes = plan_bytes(plan, self.space.stored)
        return QuantPlan(
            model_digest=self.student.digest,
            importance=self.table.method,
            groups=tuple(
                GroupPlan(group=group.name, format=plan[group.name], importance=self._importance(group, losses))
                for group in self.student.groups
            ),
            predicted_weight_bytes=stored_bytes + budget.other_tensor_bytes,
            predicted_artifact_bytes=budget.artifact_bytes(stored_bytes),
            predicted_decode_ms=self.space.decode_ms(plan),
            predicted_resident_bytes=budget.resident_bytes(plan_bytes(plan, self.space.held)),
        )

    def _importance(self, group: WeightGroup, losses: LossTable) -> float:
        """That of the block; or what the group loses in the worst of its formats."""
        if self.table.blocks is not None:
            return importance(group, self.table.blocks)
        return max(losses[group.name].values())
