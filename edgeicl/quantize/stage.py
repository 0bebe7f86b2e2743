"""The quantize stage: importance, the plan within the target's bytes, and the weights rounded by it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.numpy import save_file

from edgeicl.errors import DataError
from edgeicl.models.anatomy import EMBEDDING, WeightGroup, weight_groups
from edgeicl.models.loading import load_tokenizer
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
from edgeicl.quantize.block_losses import importance
from edgeicl.quantize.budget import WeightBudget, require_room, task_file_bytes, weight_budget
from edgeicl.quantize.calibration import calibration_sequences, calibration_text
from edgeicl.quantize.curve import size_curve
from edgeicl.quantize.measured_importance import Student, importance_table
from edgeicl.quantize.plan_file import fits, read_plan
from edgeicl.quantize.refinement import refine
from edgeicl.quantize.stored_weights import stored_tensors
from edgeicl.quantize.student_weights import read_config, read_weights
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

TEXT_BLOCK_TOKENS = 128


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
    config = read_config(student)
    groups = weight_groups(config)
    offered = offered_formats(groups, target.formats)
    tokenizer = load_tokenizer(student)
    task = recipe.task
    task_bytes = task_file_bytes(task.pattern, task.verbalizers, task.separator)
    sets = read_prefix_source(prefix) if prefix else []
    budget, clamped = weight_budget(
        target,
        config,
        tokenizer_bytes=len(tokenizer.to_str().encode()),
        task_bytes=task_bytes,
        prefix_bytes=prefix_file_bytes(
            int(config["num_hidden_layers"]),
            int(config["hidden_size"]),
            [len(values) for values in sets],
            bits=recipe.emit.prefix_bits,
            ids=any(values.ndim == 1 for values in sets),
        ),
    )
    stored = {g.name: {f: group_bytes(*g.shape, f) for f in formats} for g, formats in offered.items()}
    held = {
        g.name: {f: held_bytes(*g.shape, f, looked_up=g.name == EMBEDDING) for f in formats}
        for g, formats in offered.items()
    }
    # Only sensitivity tells groups apart: the other methods rate whole blocks, whose groups share one format.
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
            int(config["max_position_embeddings"]),
            prefix_tokens=max(map(len, sets)),
            query_tokens=max(map(len, sequences)) + max(map(len, labels)),
        )
    if settings.calibration_text is not None:
        room = int(config["max_position_embeddings"]) - max(map(len, sets), default=0)
        sequences += calibration_text(
            settings.calibration_text,
            student,
            blocks=settings.calibration_text_blocks,
            block_tokens=min(TEXT_BLOCK_TOKENS, room),
            seed=recipe.seed,
            base_folder=base_folder,
        )
    source = Student(
        load=lambda: read_weights(student),
        groups=groups,
        digest=student_digest,
        sequences=sequences,
        importance=settings.importance,
        top_k=settings.top_k,
        lsaq=settings.lsaq,
        solver=settings.solver,
        prefix=sets[0] if sets else None,
        prefix_digest=file_sha256(prefix) if prefix else None,
    )
    table, digests = importance_table(source, target.formats, store=store)
    inputs = {
        "importance": digests,
        "student": student_digest,
        "solver": settings.solver,
        "refine": settings.refine,
        "plan": {name: f.model_dump(mode="json") for name, f in edited.items()} if edited else None,
        "formats": [f.model_dump(mode="json") for f in target.formats],
        "budget": target.budget.model_dump(mode="json"),
        "target": [target.name, target.context_tokens, target.runtime_overhead_bytes],
        "file_bytes": budget.other_file_bytes,
    }

    planning = _Planning(source, table, stored, held, units, budget, target.formats, settings.refine)

    def build(folder: Path) -> None:
        if store.workers.is_writer:
            planning.write(folder, edited)
            listed = [deviation.model_dump(mode="json") for deviation in clamped]
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
    refine_rounds: int

    def write(self, folder: Path, edited: Plan | None) -> None:
        """Writes plan, importance, curve and weights; the plan is `edited` if there is one."""
        refinement: tuple[float, ...] = ()
        if edited is not None:
            plan = edited
        elif self.refine_rounds:
            plan, refinement = self._refined()
        else:
            plan = self._of_groups(self._best(self.budget.limits(self.stored, self.held)))
        curve = size_curve(
            plan,
            self.table.losses(),
            self.stored,
            self.held,
            budget=self.budget,
            formats=self.formats,
            loss_unit=self.table.unit,
            smallest_bytes=smallest_bytes(merged(self.stored, self.units)),
            best=lambda limit_bytes: self._of_groups(self._best([Limit(self.stored, limit_bytes)])),
            measure=self.student.plan_loss,
            refinement=refinement,
        )
        for name, spec in (
            ("plan.json", self._described(plan)),
            ("importance.json", self.table),
            ("curve.json", curve),
        ):
            (folder / name).write_text(spec.model_dump_json(indent=1) + "\n")
        save_file(
            stored_tensors(self.student.weights, self.student.stored(plan)), folder / "weights.safetensors"
        )

    def _best(self, limits: Sequence[Limit]) -> Plan:
        """A format for every unit."""
        # No unit is without a format: blocks are powers of two, so the least that fits one group fits them all.
        return allocate(merged(self.table.losses(), self.units), self._of_units(limits))

    def _refined(self) -> tuple[Plan, tuple[float, ...]]:
        """The best plan of groups after refinement, and the losses that were measured on the way."""
        limits = self.budget.limits(self.stored, self.held)
        found = refine(
            self._best(limits),
            merged(self.stored, self.units),
            self._of_units(limits),
            measure=lambda plan: self.student.plan_loss(self._of_groups(plan)),
            near=lambda plan, other: self.student.plan_loss.near(self._of_groups(plan), self._of_groups(other)),
            rounds=self.refine_rounds,
        )
        return self._of_groups(found.plan), found.losses

    def _of_units(self, limits: Sequence[Limit]) -> list[Limit]:
        return [Limit(merged(limit.sizes, self.units), limit.limit_bytes) for limit in limits]

    def _of_groups(self, by_unit: Plan) -> Plan:
        return {group: by_unit[unit] for group, unit in self.units.items()}

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
        """That of the block; or what the group loses in the worst of its formats."""
        if self.table.blocks is not None:
            return importance(group, self.table.blocks)
        return max(losses[group.name].values())
