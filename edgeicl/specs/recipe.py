"""The recipe: what to build. Names a teacher, a student and a task, and holds no fact about a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field, model_validator

from edgeicl.specs.broken_rules import BrokenRulesError
from edgeicl.specs.distillation import Distill
from edgeicl.specs.icl import same_question
from edgeicl.specs.importance import ImportanceMethod, MeasuredFormats
from edgeicl.specs.recovery import Recover
from edgeicl.specs.source import TextSource
from edgeicl.specs.spec import Name, Spec
from edgeicl.specs.task import Task
from edgeicl.specs.tuning_task import TuningTask


class Lsaq(Spec):
    """What LSAQ's paper leaves open about its Jaccard similarity, beside `top_k`."""

    final_norm: bool = Field(True, description="Whether the final norm precedes the head, as in the model.")
    sets_over: Literal["sequence", "position"] = Field(
        "sequence", description="Tokens of a set: those of all positions of a sequence, or of one position."
    )


class Quantize(Spec):
    """How precision is chosen and weights are rounded."""

    importance: ImportanceMethod = Field(
        "sensitivity",
        description="What weighs a group: the measured rise of KL; or what weighs a whole block: the Jaccard "
        "similarity of LSAQ, the cosine of its input and output, the z-scores of its weights.",
    )
    measured_formats: MeasuredFormats = Field(
        "all",
        description="Formats that sensitivity is measured in: all; or for each group one of 2 bits and one of "
        "more, from which the others follow by how far they change its outputs: several times as fast.",
    )
    top_k: int = Field(10, ge=1, description="Tokens in each set of the Jaccard importance (LSAQ).")
    lsaq: Lsaq = Lsaq()
    solver: Literal["rtn", "hqq", "gptq"] = Field(
        "rtn",
        description="How weights become codes: round to nearest with searched scales, half-quadratic "
        "quantization, or GPTQ with the calibration texts.",
    )
    calibration_examples: int = Field(
        32,
        ge=1,
        description="Examples of `train` on which importance is measured, and GPTQ's inputs come from.",
    )
    calibration_text: TextSource | None = Field(
        None, description="Plain text for the same, beside the examples; for a student that writes text."
    )
    calibration_text_blocks: int = Field(16, ge=1, description="Pieces of 128 tokens drawn from that text.")
    refine: int = Field(
        0, ge=0, description="Rounds of measuring whole plans around the allocated one and taking better ones."
    )
    recover: Recover | None = Field(
        None,
        description="Training of the student with its weights rounded by the plan, which brings one of 2 or 4 "
        "bits back; null: none.",
    )
    plan: str | None = Field(None, description="A plan file to use as it is, instead of allocating.")

    @model_validator(mode="after")
    def _a_given_plan_stays(self) -> Quantize:
        if self.plan is not None and self.refine:
            raise BrokenRulesError(
                [("refine", f"{self.refine} with a plan, which is used as it is; expected 0")]
            )
        return self


class Emit(Spec):
    """What the artifact looks like."""

    head: Literal["full", "verbalizers"] = Field(
        "full",
        description="Logits of the graph; full: of the whole vocabulary; verbalizers: of the labels' tokens "
        "alone, so that a query costs no product with the vocabulary, and nothing can be generated.",
    )
    prefix_bits: Literal[16, 32] = Field(
        32,
        description="Of each number of `prefix.safetensors`; 16 takes half the bytes, and rounds. Never more "
        "than the artifact's key/value cache has.",
    )


class Limits(Spec):
    """The build fails when the artifact is worse than this."""

    accuracy_drop_points: float = Field(1.0, ge=0.0, description="Points of accuracy the artifact may lose.")
    accuracy_examples: int = Field(512, ge=1, description="Examples it is checked on, drawn with the seed.")


class Recipe(Spec):
    """A whole recipe file."""

    version: Literal[1] = Field(description="Version of the recipe format.")
    name: Name = Field(description="Name of the build, of letters, digits, `.`, `_` and `-`.")
    seed: int = Field(0, description="Seed of everything drawn that has no seed of its own.")
    task: Task
    distill: Distill
    quantize: Quantize = Quantize()
    emit: Emit = Emit()
    limits: Limits = Limits()
    targets: tuple[str, ...] = Field((), description="Default targets; `--target` replaces them.")

    @model_validator(mode="after")
    def _target_is_no_further_task(self) -> Recipe:
        icl, mend = self.distill.icl.tasks, self.distill.mend
        self._refuse_target(
            "icl", icl, "others: paradigm meta must not be tuned on it, multitask is so without being told"
        )
        if mend is not None and mend.target != "seen":
            seen = "others, or distill.mend.target: seen, which trains on it without being told"
            self._refuse_target("mend", mend.tasks, seen)
        return self

    def _refuse_target(self, section: str, tasks: Sequence[TuningTask], expected: str) -> None:
        """ValueError where one of the section's `tasks` reads what the target task does."""
        own = [source for source in (self.task.train, self.task.in_domain, self.task.out_of_domain) if source]
        for number, task in enumerate(tasks):
            if any(same_question(task.train, source) for source in own):
                raise ValueError(
                    f"distill.{section}.tasks[{number}] reads {task.train}, which is the target task; "
                    f"expected {expected}"
                )

    @model_validator(mode="after")
    def _channel_where_it_can_be(self) -> Recipe:
        if self.task.scoring == "channel":
            if self.distill.method != "context":
                raise ValueError(
                    f"task.scoring channel with method {self.distill.method}; expected method context: only "
                    "there models are asked that are not deployed"
                )
            if self.distill.objective.on_policy:
                raise ValueError(
                    "task.scoring channel with distill.objective.on_policy; expected direct: what the student "
                    "writes goes on from the text, not from a label"
                )
            if self.distill.objective.over == "vocabulary":
                raise ValueError(
                    "task.scoring channel with distill.objective.over vocabulary; expected verbalizers: a "
                    "channel's scores are of labels only"
                )
        return self
