"""The quantize stage: importance, the plan within the target's bytes, and the weights rounded by it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.numpy import save_file

from edgeicl.errors import DataError
from edgeicl.models.anatomy import EMBEDDING, LABEL_HEAD, WeightGroup
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.loading import load_tokenizer
from edgeicl.models.model_folder import model_config
from edgeicl.numerics.size import prefix_file_bytes
from edgeicl.quantize.allocation import LossTable, plan_bytes
from edgeicl.quantize.budget import require_room, task_file_bytes, weight_budget
from edgeicl.quantize.calibration import calibration_sequences
from edgeicl.quantize.curve import size_curve
from edgeicl.quantize.jaccard import importance
from edgeicl.quantize.measured_importance import Student, importance_table
from edgeicl.quantize.plan_file import read_plan
from edgeicl.quantize.plan_space import Plan, PlanSpace, plan_space
from edgeicl.quantize.stored_weights import stored_tensors, stored_values
from edgeicl.quantize.student_weights import read_weights
from edgeicl.specs.importance import ImportanceTable
from edgeicl.specs.local_path import local_path
from edgeicl.specs.manifest import Deviation
from edgeicl.specs.prefix import read_prefix_source
from edgeicl.specs.quant_plan import Format, GroupPlan, QuantPlan
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.target import Target
from edgeicl.store import StageOutput, Store, file_sha256
from edgeicl.tasks.verbalizer import label_columns, verbalizer_tokens


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
        DataError: a model that is unsupported, a group that none of the target's formats fits, or a context
            that doesn't hold the prefix and a query behind it.
    """
    settings = recipe.quantize
    sets = read_prefix_source(prefix) if prefix else []
    space, clamped = sized(
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
    table, digests = importance_table(source, target.formats, settings=settings, store=store)
    inputs = {
        "importance": digests,
        "student": student_digest,
        "solver": settings.solver,
        "plan": {name: f.model_dump(mode="json") for name, f in edited.items()} if edited else None,
        "formats": [f.model_dump(mode="json") for f in target.formats],
        "budget": target.budget.model_dump(mode="json"),
        "calibration": target.calibration and target.calibration.model_dump(mode="json"),
        "target": [target.name, target.context_tokens, target.runtime_overhead_bytes],
        "head_tokens": source.head_tokens,
        "file_bytes": space.budget.other_file_bytes,
    }

    planning = _Planning(source, table, space)

    def build(folder: Path) -> None:
        if store.workers.is_writer:
            planning.write(folder, edited)
            listed = [deviation.model_dump(mode="json") for deviation in clamped]
            (folder / "deviations.json").write_text(json.dumps(listed, indent=1) + "\n")

    return store.run("quantize", inputs, build)


def sized(
    recipe: Recipe, target: Target, *, student: Path, prefix_tokens: Sequence[int], prefix_ids: bool
) -> tuple[PlanSpace, tuple[Deviation, ...]]:
    """What plans there are for the model in `student`, whose weights aren't read, and what each takes.

    `prefix_tokens` are of each set that stands before a query; `prefix_ids`: whether token ids are stored too.

    Raises:
        DataError: a model that is unsupported, a group that none of the target's formats fits, or a limit of
            decoding for an artifact that doesn't.
    """
    anatomy, task = anatomy_of(model_config(student)), recipe.task
    columns = head_tokens(recipe, student)
    if columns is not None and not anatomy.tied:
        raise DataError(
            f"{student} is a {anatomy.model_type} model with a head of its own; found emit.head: verbalizers, "
            "expected a head that is tied to the embedding",
            next_step="set emit.head: full",
        )
    if columns is not None and target.budget.decode_ms is not None:
        raise DataError(
            f"target {target.name} has budget.decode_ms {target.budget.decode_ms:g}; found emit.head: "
            "verbalizers, with which nothing is decoded",
            next_step="set budget.decode_ms: null, or emit.head: full",
        )
    budget, clamped = weight_budget(
        target,
        anatomy,
        tokenizer_bytes=len(load_tokenizer(student).to_str().encode()),
        task_bytes=task_file_bytes(
            task.pattern, task.verbalizers, task.separator, label_rows=len(columns or ())
        ),
        prefix_bytes=prefix_file_bytes(
            anatomy.layers,
            anatomy.kv_width,
            prefix_tokens,
            bits=recipe.emit.prefix_bits,
            ids=prefix_ids,
        ),
        label_rows=len(columns or ()),
    )
    # LSAQ rates whole decoder blocks, so a block's groups share one format; sensitivity tells groups apart.
    by_block = recipe.quantize.importance == "jaccard"
    space = plan_space(
        anatomy,
        target.formats,
        budget,
        by_block=by_block,
        label_head=columns is not None,
        calibration=target.calibration,
        decode_limit_ms=target.budget.decode_ms,
    )
    return space, clamped


def head_tokens(recipe: Recipe, student: Path) -> tuple[int, ...] | None:
    """The tokens that the artifact has logits of; None: all of the vocabulary. DataError as `label_columns`."""
    if recipe.emit.head == "full":
        return None
    return label_columns(verbalizer_tokens(recipe.task.verbalizers, load_tokenizer(student)))


def calibrated(
    recipe: Recipe,
    target: Target,
    *,
    student: Path,
    student_digest: str,
    base_folder: Path,
    prefix: Path | None,
) -> Student:
    """The student with the sequences that its importance is measured on; no weight is read yet.

    Raises:
        DataError: data that can't be read, or a context that doesn't hold the prefix and a query behind it.
    """
    settings, task = recipe.quantize, recipe.task
    anatomy = anatomy_of(model_config(student))
    sets = read_prefix_source(prefix) if prefix else []
    sequences = calibration_sequences(
        task,
        student,
        examples=settings.calibration_examples,
        seed=recipe.seed,
        base_folder=base_folder,
        behind_prefix=bool(sets),
    )
    if sets:
        labels = verbalizer_tokens(task.verbalizers, load_tokenizer(student)).values()
        require_room(
            target,
            anatomy.positions,
            prefix_tokens=max(map(len, sets)),
            query_tokens=max(map(len, sequences)) + max(map(len, labels)),
        )
    return Student(
        load=lambda: read_weights(student),
        groups=anatomy.groups,
        digest=student_digest,
        sequences=sequences,
        top_k=settings.top_k,
        prefix=sets[0] if sets else None,
        prefix_digest=file_sha256(prefix) if prefix else None,
        head_tokens=head_tokens(recipe, student),
    )


def edited_plan(
    recipe: Recipe,
    target: Target,
    space: PlanSpace,
    *,
    student: Path,
    student_digest: str | None,
    base_folder: Path,
) -> dict[str, Format] | None:
    """The plan file of the recipe, if it has one.

    Raises:
        SpecError: a plan file that doesn't suit the model or the target.
        BudgetError: the plan file breaks a limit; or, without one, every plan does.
    """
    if recipe.quantize.plan is None:
        space.require_any()
        return None
    path = local_path(recipe.quantize.plan, base_folder)
    groups = anatomy_of(model_config(student)).groups
    plan = read_plan(path, groups=groups, formats=target.formats, model_digest=student_digest)
    space.require(plan, what=f"the plan {recipe.quantize.plan}")
    return plan


@dataclass(frozen=True)
class _Planning:
    """What the plan is made from, and its files."""

    student: Student
    table: ImportanceTable
    space: PlanSpace

    def write(self, folder: Path, edited: Plan | None) -> None:
        """Writes plan, importance, curve and weights; the plan is `edited` if there is one."""
        space, losses = self.space, self.table.losses()
        plan = space.best(losses, space.limits) if edited is None else edited
        curve = size_curve(
            plan,
            losses,
            space,
            loss_unit=self.table.unit,
            measure=self._measured_loss,
        )
        for name, spec in (
            ("plan.json", self._described(plan)),
            ("importance.json", self.table),
            ("curve.json", curve),
        ):
            (folder / name).write_text(spec.model_dump_json(indent=1) + "\n")
        tensors = stored_tensors(self.student.weights, plan)
        if self.student.head_tokens is not None:
            table = self.student.weights.matrices[EMBEDDING]
            tensors[LABEL_HEAD] = table[list(self.student.head_tokens)]
        save_file(tensors, folder / "weights.safetensors")

    def _measured_loss(self, plan: Plan) -> float:
        matrices = self.student.weights.matrices
        stored = {name: torch.from_numpy(stored_values(matrices[name], f)) for name, f in plan.items()}
        return self.student.sensitivity.loss(stored)

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
        """1 - J of the layer; or what the group loses in the worst of its formats."""
        if self.table.jaccard is not None:
            return importance(group, self.table.jaccard)
        return max(losses[group.name].values())
