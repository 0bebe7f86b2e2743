"""The quantize stage: importance, the plan within the target's bytes, and the weights rounded by it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.numpy import save_file

from edgeicl.errors import DataError
from edgeicl.models.anatomy import EMBEDDING, WeightGroup
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.loading import load_tokenizer
from edgeicl.models.model_folder import model_config
from edgeicl.numerics.size import group_bytes, held_bytes, prefix_file_bytes
from edgeicl.quantize.allocation import (
    Limit,
    LossTable,
    SizeTable,
    allocate,
    merged,
    plan_bytes,
    smallest_bytes,
)
from edgeicl.quantize.budget import WeightBudget, require_room, task_file_bytes, weight_budget
from edgeicl.quantize.calibration import calibration_sequences
from edgeicl.quantize.curve import size_curve
from edgeicl.quantize.jaccard import importance
from edgeicl.quantize.measured_importance import Student, importance_table
from edgeicl.quantize.plan_file import fits, read_plan
from edgeicl.quantize.stored_weights import stored_tensors, stored_values
from edgeicl.quantize.student_weights import read_weights
from edgeicl.quantize.undivided_widths import left_in_floating_point
from edgeicl.specs.importance import ImportanceTable
from edgeicl.specs.local_path import local_path
from edgeicl.specs.prefix import read_prefix_source
from edgeicl.specs.quant_plan import Format, GroupPlan, QuantPlan
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.target import Target
from edgeicl.store import StageOutput, Store, file_sha256
from edgeicl.tasks.verbalizer import verbalizer_tokens

log = logging.getLogger(__name__)

Plan = Mapping[str, Format]


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
    groups, `<group>.weight` of floating-point ones, `<group>.bias`, and all other parameters by their names.

    Raises:
        SpecError: a plan file that doesn't suit the model or the target.
        BudgetError: no plan fits, or the plan file doesn't. Both before anything is measured.
        DataError: a model that is unsupported, a group that none of the target's formats fits, or a context
            that doesn't hold the prefix and a query behind it.
    """
    settings = recipe.quantize
    anatomy = anatomy_of(model_config(student))
    groups = anatomy.groups
    offered = offered_formats(groups, target.formats)
    tokenizer = load_tokenizer(student)
    task = recipe.task
    task_bytes = task_file_bytes(task.pattern, task.verbalizers, task.separator)
    sets = read_prefix_source(prefix) if prefix else []
    budget, clamped = weight_budget(
        target,
        anatomy,
        tokenizer_bytes=len(tokenizer.to_str().encode()),
        task_bytes=task_bytes,
        prefix_bytes=prefix_file_bytes(
            anatomy.layers,
            anatomy.kv_width,
            [len(values) for values in sets],
            bits=recipe.emit.prefix_bits,
            ids=any(values.ndim == 1 for values in sets),
        ),
    )
    stored = {g.name: {f: group_bytes(*g.shape, f) for f in formats} for g, formats in offered.items()}
    held = {
        g.name: {
            f: held_bytes(*g.shape, f, looked_up=g.name == EMBEDDING, multiplied=anatomy.multiplies(g))
            for f in formats
        }
        for g, formats in offered.items()
    }
    # LSAQ rates whole decoder blocks, so a block's groups share one format; sensitivity tells groups apart.
    units = {
        group.name: group.name
        if settings.importance == "sensitivity" or group.layer is None
        else f"layers.{group.layer}"
        for group in groups
    }
    edited = None
    if settings.plan is not None:
        edited = read_plan(
            local_path(settings.plan, base_folder),
            groups=groups,
            formats=target.formats,
            model_digest=student_digest,
        )
        budget.require(
            stored_bytes=plan_bytes(edited, stored),
            held_bytes=plan_bytes(edited, held),
            what=f"the plan {settings.plan}",
        )
    else:
        budget.require(
            stored_bytes=smallest_bytes(merged(stored, units)),
            held_bytes=smallest_bytes(merged(held, units)),
            what="the smallest plan of its formats",
        )
        budget.require_together(merged(stored, units), merged(held, units))

    sequences = calibration_sequences(
        task,
        student,
        examples=settings.calibration_examples,
        seed=recipe.seed,
        base_folder=base_folder,
        behind_prefix=bool(sets),
    )
    if sets:
        labels = verbalizer_tokens(task.verbalizers, tokenizer).values()
        require_room(
            target,
            anatomy.positions,
            prefix_tokens=max(map(len, sets)),
            query_tokens=max(map(len, sequences)) + max(map(len, labels)),
        )
    source = Student(
        load=lambda: read_weights(student),
        groups=groups,
        digest=student_digest,
        sequences=sequences,
        top_k=settings.top_k,
        prefix=sets[0] if sets else None,
        prefix_digest=file_sha256(prefix) if prefix else None,
    )
    table, digests = importance_table(source, target.formats, settings=settings, store=store)
    inputs = {
        "importance": digests,
        "student": student_digest,
        "solver": settings.solver,
        "plan": {name: f.model_dump(mode="json") for name, f in edited.items()} if edited else None,
        "formats": [f.model_dump(mode="json") for f in target.formats],
        "budget": target.budget.model_dump(mode="json"),
        "target": [target.name, target.context_tokens, target.runtime_overhead_bytes],
        "file_bytes": budget.other_file_bytes,
    }

    planning = _Planning(source, table, stored, held, units, budget, target.formats)

    def build(folder: Path) -> None:
        if store.workers.is_writer:
            planning.write(folder, edited)
            found = (*clamped, *left_in_floating_point(target.formats, offered))
            listed = [deviation.model_dump(mode="json") for deviation in found]
            (folder / "deviations.json").write_text(json.dumps(listed, indent=1) + "\n")

    return store.run("quantize", inputs, build)


def offered_formats(
    groups: Sequence[WeightGroup], formats: Sequence[Format]
) -> dict[WeightGroup, list[Format]]:
    """The formats that each group can have: those whose blocks divide its rows.

    Raises:
        DataError: groups that none of the formats fits, all of them named.
    """
    offered = {group: [format_ for format_ in formats if fits(group, format_)] for group in groups}
    without = [group for group, fitting in offered.items() if not fitting]
    if without:
        named = ", ".join(f"{group.name} ({group.shape[1]} columns)" for group in without)
        raise DataError(
            f"none of the target's formats ({', '.join(map(str, formats))}) fits {named}",
            next_step="offer a format whose block size divides the columns, or a floating-point format",
        )
    unused = [str(f) for f in formats if not any(f in fitting for fitting in offered.values())]
    if unused:
        log.info("no weight group has rows that blocks of %s divide", ", ".join(unused))
    return offered


@dataclass(frozen=True)
class _Planning:
    """What the plan is made from, and its files."""

    student: Student
    table: ImportanceTable
    stored: SizeTable
    held: SizeTable
    units: Mapping[str, str]
    budget: WeightBudget
    formats: Sequence[Format]

    def write(self, folder: Path, edited: Plan | None) -> None:
        """Writes plan, importance, curve and weights; the plan is `edited` if there is one."""
        plan = self._best(self.budget.limits(self.stored, self.held)) if edited is None else edited
        curve = size_curve(
            plan,
            self.table.losses(),
            self.stored,
            self.held,
            budget=self.budget,
            formats=self.formats,
            loss_unit=self.table.unit,
            smallest_bytes=smallest_bytes(merged(self.stored, self.units)),
            best=lambda limit_bytes: self._best([Limit(self.stored, limit_bytes)]),
            measure=self._measured_loss,
        )
        for name, spec in (
            ("plan.json", self._described(plan)),
            ("importance.json", self.table),
            ("curve.json", curve),
        ):
            (folder / name).write_text(spec.model_dump_json(indent=1) + "\n")
        save_file(stored_tensors(self.student.weights, plan), folder / "weights.safetensors")

    def _best(self, limits: Sequence[Limit]) -> Plan:
        # No unit is without a format: blocks are powers of two, so the least that fits one group fits them all.
        of_units = [Limit(merged(limit.sizes, self.units), limit.limit_bytes) for limit in limits]
        by_unit = allocate(merged(self.table.losses(), self.units), of_units)
        return {group: by_unit[unit] for group, unit in self.units.items()}

    def _measured_loss(self, plan: Plan) -> float:
        matrices = self.student.weights.matrices
        stored = {name: torch.from_numpy(stored_values(matrices[name], f)) for name, f in plan.items()}
        return self.student.sensitivity.loss(stored)

    def _described(self, plan: Plan) -> QuantPlan:
        losses = self.table.losses()
        stored_bytes = plan_bytes(plan, self.stored)
        return QuantPlan(
            model_digest=self.student.digest,
            importance=self.table.method,
            groups=tuple(
                GroupPlan(group=group.name, format=plan[group.name], importance=self._importance(group, losses))
                for group in self.student.groups
            ),
            predicted_weight_bytes=stored_bytes + self.budget.other_tensor_bytes,
            predicted_artifact_bytes=self.budget.artifact_bytes(stored_bytes),
            predicted_resident_bytes=self.budget.resident_bytes(plan_bytes(plan, self.held)),
        )

    def _importance(self, group: WeightGroup, losses: LossTable) -> float:
        """1 - J of the layer; or what the group loses in the worst of its formats."""
        if self.table.jaccard is not None:
            return importance(group, self.table.jaccard)
        return max(losses[group.name].values())
