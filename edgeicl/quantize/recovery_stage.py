"""The recover stage: the student trained as its plan stores it, in the files that the quantize stage wrote."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from edgeicl.checkpoint import is_kept, keep_file
from edgeicl.models.loading import load_model
from edgeicl.progress import track
from edgeicl.quantize.cache import cache_scales_of
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.input_steps import integer_products
from edgeicl.quantize.lessons import Lesson
from edgeicl.quantize.made_on_use import MadeOnUse
from edgeicl.quantize.own_texts import own_texts
from edgeicl.quantize.recovery import Recovered, recover
from edgeicl.quantize.recovery_material import RecoveryMaterial
from edgeicl.quantize.stage_inputs import head_tokens
from edgeicl.quantize.stored_weights import read_again, read_stored
from edgeicl.quantize.student_in_training import StudentInTraining
from edgeicl.quantize.student_weights import read_weights
from edgeicl.quantize.weights_file import write_weights
from edgeicl.specs.curve import SizeCurve
from edgeicl.specs.manifest import Deviation
from edgeicl.specs.prefix import read_prefix_source
from edgeicl.specs.quant_plan import QuantPlan
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.recovery import Recover, Recovery
from edgeicl.store import CHECKPOINT, StageOutput, Store, digest_of, file_sha256
from edgeicl.tasks.label_targets import LabelTargets

_OWN_TEXTS = "own_texts.json"
_ROWS_FOR_STEPS = 64  # of each lesson


def recovered(
    recipe: Recipe,
    settings: Recover,
    *,
    student: Path,
    student_digest: str,
    quantized: StageOutput,
    targets: LabelTargets | None,
    store: Store,
    base_folder: Path,
    prefix: Path | None = None,
) -> StageOutput:
    """The files of `quantized`, the output of `quantize`, with weights that were trained in its formats.

    Where training makes nothing better on held-out sequences, the weights are those of `quantized`, and a
    deviation says so.

    Args:
        targets: A teacher's answers to queries; None where the unquantized student alone teaches.
        prefix: As for `quantize`; sequences are learned behind its sets in turn.

    Raises:
        DataError: data that can't be read, or too little of it.
    """
    sets = read_prefix_source(prefix) if prefix else []
    material = RecoveryMaterial(
        recipe, settings, student=student, base_folder=base_folder, targets=targets, sets=sets
    )
    columns = head_tokens(recipe, student)
    inputs = {
        "quantized": quantized.digest,
        "student": student_digest,
        "settings": settings.model_dump(mode="json"),
        "seed": recipe.seed,
        "score": recipe.task.score,
        "lessons": digest_of([[lesson.name, [*map(list, lesson.rows)]] for lesson in material.lessons]),
        "words": digest_of([list(lesson.answers.words) for lesson in material.lessons if lesson.answers]),
        "targets": targets and targets.digest,
        "leading": list(material.leading),
        "text_tokens": material.text_tokens,
        "prefix": prefix and file_sha256(prefix),
        "head_tokens": columns,
    }

    def build(folder: Path) -> None:
        if store.workers.is_writer:
            training = _Training(folder, quantized.path, student, settings, recipe.seed, columns)
            training.write(material, sets)

    return store.run("recover", inputs, build)


@dataclass(frozen=True)
class _Training:
    """One run of the stage into one folder."""

    folder: Path
    quantized: Path
    student: Path
    settings: Recover
    seed: int
    head_tokens: Sequence[int] | None

    def write(self, material: RecoveryMaterial, sets: Sequence[NDArray[Any]]) -> None:
        """Writes every file of the stage."""
        for name in ("plan.json", "importance.json", "curve.json", "weights.safetensors"):
            shutil.copyfile(self.quantized / name, self.folder / name)
        listed = json.loads((self.quantized / "deviations.json").read_text())
        told = [*material.deviations, *self._recover(material, sets)]
        listed += [deviation.model_dump(mode="json") for deviation in told]
        (self.folder / "deviations.json").write_text(json.dumps(listed, indent=1) + "\n")

    def _recover(self, material: RecoveryMaterial, sets: Sequence[NDArray[Any]]) -> list[Deviation]:
        """Replaces weights and curve by those after training, if it makes anything better."""
        whole = QuantPlan.model_validate_json((self.folder / "plan.json").read_bytes())
        plan = whole.formats()
        if not any(format_.quantized for format_ in plan.values()):
            return [self._deviation("no weight is rounded under this plan")]
        lessons = [*material.lessons]
        if self.settings.own_texts:
            written = self._own_texts(material.leading, material.text_tokens)
            lessons.append(Lesson("own texts", written, before=sets))
        tensors = load_file(self.folder / "weights.safetensors")
        weights = read_weights(self.student)
        found = recover(
            StudentInTraining(self._model(), weights, read_stored(tensors, plan), head_tokens=self.head_tokens),
            lessons,
            steps=self.settings.steps,
            learning_rate=self.settings.learning_rate,
            batch_size=self.settings.batch_size,
            seed=self.seed,
            checkpoint_folder=self.folder / CHECKPOINT / "training",
        )
        self._write_curve(found.record)
        if found.record.best_step == 0:
            looks = len(found.record.judged) - 1
            return [self._deviation(f"at none of {looks} looks was the loss on held-out sequences lower")]
        write_weights(
            self.folder / "weights.safetensors",
            found.weights,
            found.stored.items(),
            plan,
            head_tokens=self.head_tokens,
            cache_scales=cache_scales_of(tensors),
            input_steps=self._input_steps(found, whole, lessons, sets),
            activation_bits=whole.activation_bits,
            prompt_format=whole.prompt_format,
            prompt_matrices=MadeOnUse(found.stored, lambda name: read_again(found.stored[name])),
        )
        unmeasured = whole.model_copy(update={"prompt_loss": None})  # the copy is of other weights now
        (self.folder / "plan.json").write_text(unmeasured.model_dump_json(indent=1) + "\n")
        return computed_otherwise(whole)

    def _input_steps(
        self, found: Recovered, plan: QuantPlan, lessons: Sequence[Lesson], sets: Sequence[NDArray[Any]]
    ) -> dict[str, float]:
        """Of the trained student, as it is stored, at what it learned from."""
        products = integer_products(found.weights.groups, plan.formats(), plan.prompt_format)
        if not products:
            return {}
        rows = [row for lesson in lessons for row in lesson.rows[:_ROWS_FOR_STEPS]]
        stored = {name: torch.from_numpy(read_again(matrix)) for name, matrix in found.stored.items()}
        decoder = CalibratedDecoder(found.weights, rows, sets[0] if sets else None)
        return {group: step for group, step in decoder.input_steps_with(stored).items() if group in products}

    def _own_texts(self, leading: Sequence[int], tokens: int) -> list[list[int]]:
        """Written once, and kept for a run after a kill."""
        kept = self.folder / CHECKPOINT / _OWN_TEXTS
        count = self.settings.own_texts
        if not is_kept(kept):
            with track("the student writes texts", count) as advance:
                written = own_texts(
                    self._model(),
                    leading=leading,
                    texts=count,
                    tokens=tokens,
                    seed=self.seed,
                    advance=advance,
                )
            keep_file(kept, lambda path: _write_json(path, written))
        rows: list[list[int]] = json.loads(kept.read_text())
        return rows

    def _model(self) -> Any:
        return load_model(self.student, device="cuda" if torch.cuda.is_available() else "cpu")

    def _write_curve(self, record: Recovery) -> None:
        path = self.folder / "curve.json"
        curve = SizeCurve.model_validate_json(path.read_bytes()).model_copy(update={"recovery": record})
        path.write_text(curve.model_dump_json(indent=1) + "\n")

    def _deviation(self, why: str) -> Deviation:
        return Deviation(
            what="recovery",
            where="quantize.recover",
            asked=f"weights trained for {self.settings.steps} steps",
            got="the weights as they were rounded",
            why=why,
        )


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def computed_otherwise(plan: QuantPlan) -> list[Deviation]:
    """What the artifact rounds that training doesn't."""
    products = any(group.format.by_row for group in plan.groups) or plan.prompt_format is not None
    rounds = ["inputs of integer products"] * products
    rounds += ["keys and values"] * (plan.cache_bits != 32)
    rounds += ["activations"] * (plan.activation_bits != 32)
    if not rounds:
        return []
    return [
        Deviation(
            what="recovery",
            where="quantize.recover",
            asked="training as the artifact computes",
            got=f"training without the rounding of {', '.join(rounds)}",
            why="only weights are rounded while the student is trained; its losses are of that student",
        )
    ]
