"""The recipe layer's part of a recipe: teacher, student, and how one learns from the other."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from edgeicl.specs.adapter import AdapterKind, Lora
from edgeicl.specs.broken_rules import BrokenRulesError
from edgeicl.specs.icl import Icl
from edgeicl.specs.mend import Mend
from edgeicl.specs.meta_kd import MetaKD
from edgeicl.specs.method_rules import broken_rules
from edgeicl.specs.model_name import ModelName
from edgeicl.specs.on_policy import OnPolicy
from edgeicl.specs.source import SeededSource, TextSource
from edgeicl.specs.spec import Share, Spec

TrackerName = Literal[
    "none", "tensorboard", "wandb", "mlflow", "aim", "comet_ml", "clearml", "dvclive", "swanlab", "trackio"
]  # fmt: skip


class Teacher(Spec):
    """The large model that sees demonstrations."""

    model: ModelName = Field(description="Hub name, local folder, or `builtin:nli-teacher`.")
    load_in: Literal["fp32", "bf16", "8bit", "4bit"] = Field(
        "fp32", description="Precision of the teacher's weights; 8bit and 4bit need a CUDA device."
    )


class Student(Spec):
    """The small model that is trained, compiled and deployed."""

    model: ModelName = Field(description="Hub name, local folder, or `builtin:nli-student`.")
    adapter: AdapterKind = Field(
        "none",
        description="What is trained: all weights (none), low-rank updates (lora) or biases (bitfit). Merged "
        "after training.",
    )
    lora: Lora = Lora()


class Demonstrations(Spec):
    """The labelled examples that the teacher sees."""

    count: int = Field(16, ge=1, description="Demonstrations in one context.")
    balanced: bool = Field(True, description="As many of each label; else as drawn.")
    seeds: tuple[int, ...] = Field(
        (0, 1, 2, 3, 4),
        min_length=1,
        description="A demonstration set for each. context trains a student on each and deploys the best.",
    )
    sets_per_student: int = Field(
        1,
        ge=1,
        description="Demonstration sets of each student; it learns the mean of the teacher's probabilities.",
    )

    source: SeededSource | None = Field(
        None,
        description="Where they are drawn from, instead of `task.train`; `{seed}` in its path is the seed.",
    )

    @field_validator("source")
    @classmethod
    def _files_there(cls, source: SeededSource | None, info: ValidationInfo) -> SeededSource | None:
        if source is not None and info.context is not None:
            source.check_files(info.data.get("seeds", ()), info.context["base_folder"])
        return source

    @field_validator("seeds")
    @classmethod
    def _seeds_distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("seeds must be distinct")
        return seeds


class Objective(Spec):
    """What the student is trained to do: weights of the loss terms."""

    kl: Share = Field(1.0, description="Weight of the divergence from the teacher's probabilities.")
    ce: Share = Field(
        0.0, description="Weight of the cross-entropy with the true labels; 1 for method icl unless told."
    )
    temperature: float = Field(
        1.0, gt=0.0, description="Divides the logits of both before the divergence; above 1 softens them."
    )
    over: Literal["verbalizers", "vocabulary"] = Field(
        "verbalizers", description="Tokens whose probabilities the student learns: the label words, or all."
    )
    lm: Share = Field(0.0, description="Weight of language modelling on `distill.text`.")
    on_policy: Share = Field(
        0.0, description="Weight of the reverse divergence on texts that the student samples itself."
    )

    @model_validator(mode="after")
    def _something_to_learn(self) -> Objective:
        if self.kl == 0 and self.ce == 0 and self.on_policy == 0:
            raise ValueError("kl, ce and on_policy are all 0; expected at least one above 0")
        return self


class Training(Spec):
    """How the student, and the fine-tuned baseline, are trained."""

    learning_rate: float = Field(3e-4, gt=0.0, description="Highest, after the warm-up; then it falls.")
    epochs: int = Field(
        2,
        ge=1,
        description="Passes over transfer examples, episodes (icl) or the domain (meta_kd).",
    )
    batch_size: int = Field(32, ge=1, description="Examples in one step, over all processes.")
    warmup_ratio: float = Field(
        0.1, ge=0.0, le=1.0, description="Share of the steps in which the learning rate rises."
    )
    weight_decay: float = Field(0.0, ge=0.0, description="AdamW's decay of the weights.")
    max_gradient_norm: float = Field(1.0, gt=0.0, description="Longer gradients are scaled down to this.")
    checkpoint_every_steps: int = Field(
        50, ge=1, description="A killed training goes on from its last checkpoint."
    )
    optimizer: Literal["adamw", "adamw_8bit"] = Field(
        "adamw", description="adamw_8bit keeps its state in 8 bits (bitsandbytes) and needs a CUDA device."
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations twice instead of keeping them: slower, less memory."
    )
    mixed_precision: Literal["no", "bf16", "fp16"] = Field(
        "no", description="Number format of the forward pass; weights stay fp32. fp16 needs a CUDA device."
    )
    tracker: TrackerName = Field(
        "none", description="Where loss and learning rate of every step are logged, beside the progress."
    )
    log_folder: str = Field(
        "logs", min_length=1, description="Folder of the tracker's files, from the current one on."
    )

    def deciding(self) -> dict[str, Any]:
        """What decides the trained weights: all but how often it is kept and where it is logged."""
        return self.model_dump(mode="json", exclude={"checkpoint_every_steps", "tracker", "log_folder"})


class Distill(Spec):
    """The recipe layer: teacher, student, and how one learns from the other."""

    method: Literal["context", "icl", "mend", "meta_kd", "none"] = Field(
        "context",
        description="context: context distillation; icl: in-context learning distillation; mend: "
        "demonstrations become vectors before the frozen student; meta_kd: from a teacher of many domains; "
        "none: the student is compiled as it is.",
    )
    teacher: Teacher | None = Field(
        None,
        description="The large model that sees demonstrations; method none has none, and that of mend is the "
        "student itself.",
    )
    student: Student
    demonstrations: Demonstrations = Demonstrations()
    prefix: Literal["none", "demonstrations"] = Field(
        "none",
        description="What the artifact of method none carries: nothing; or the demonstrations of every seed, "
        "computed once, before each query, with a majority vote of the seeds.",
    )
    transfer_examples: int = Field(
        4096, ge=1, description="Examples of `train` on which the student learns the teacher's answers."
    )
    leakage: Literal["refuse", "drop"] = Field(
        "refuse",
        description="Demonstrations and transfer examples whose text is in the evaluation data: an error, or "
        "left out.",
    )
    objective: Objective = Objective()
    mend: Mend | None = Field(None, description="What method mend trains, and on what.")
    on_policy: OnPolicy = OnPolicy()
    icl: Icl = Icl()
    text: TextSource | None = Field(None, description="Plain text, for the terms that model language.")
    training: Training = Training()
    require_gain: bool = Field(
        True, description="Refuse a teacher whose gain from demonstrations is not clearly above zero."
    )
    baseline_epochs: int = Field(20, ge=1, description="Epochs of pattern-based fine-tuning.")
    meta_kd: MetaKD | None = Field(None, description="Domains and terms of method meta_kd.")

    @model_validator(mode="after")
    def _both_losses_of_icl(self) -> Distill:
        """That method is the sum of a hard loss and a soft one (arXiv 2212.10670, figure 2)."""
        if self.method == "icl" and "ce" not in self.objective.model_fields_set:
            object.__setattr__(self, "objective", self.objective.model_copy(update={"ce": 1.0}))
        return self

    @model_validator(mode="after")
    def _keys_go_together(self) -> Distill:
        broken = list(broken_rules(self))
        if broken:
            raise BrokenRulesError(broken)
        return self
