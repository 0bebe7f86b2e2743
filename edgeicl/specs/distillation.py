"""The recipe layer's part of a recipe: teacher, student, and how one learns from the other."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from edgeicl.specs.adapter import AdapterKind, Lora
from edgeicl.specs.icl import Icl
from edgeicl.specs.mend import Mend
from edgeicl.specs.meta_kd import MetaKD
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


# Method `none` is the exit from any recipe: what other methods read is let stand there.
_READ_BY = {
    "student.adapter": ("context",),
    "demonstrations.sets_per_student": ("context",),
    "objective.on_policy": ("context",),
    "on_policy": ("context", "none"),
    "icl": ("icl", "none"),
    "mend": ("mend", "none"),
    "meta_kd": ("meta_kd", "none"),
    "transfer_examples": ("context", "mend", "none"),
}
"""Key -> the methods that read it; what is not here, all do."""


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
    def _prefix_wanted(self) -> Distill:
        if self.prefix == "demonstrations" and self.method != "none":
            raise ValueError(f"prefix: demonstrations is for method none; method {self.method} decides itself")
        return self

    @model_validator(mode="after")
    def _teacher_present(self) -> Distill:
        if self.method not in ("none", "mend") and self.teacher is None:
            raise ValueError(f"method {self.method} needs a teacher")
        return self

    @model_validator(mode="after")
    def _mend_can_run(self) -> Distill:
        if self.method != "mend":
            return self
        if self.mend is None:
            raise ValueError("method mend needs the section mend, with a hypernetwork")
        if self.teacher is not None:
            raise ValueError("method mend has no teacher: it is the student itself, with plain demonstrations")
        if self.objective != Objective():
            raise ValueError("method mend does not read objective; its weight of kl is mend.on_tasks.kl")
        if self.mend.on_text.steps and self.text is None:
            raise ValueError(
                f"mend.on_text.steps is {self.mend.on_text.steps}; expected plain text in distill.text, or 0"
            )
        if self.mend.votes > len(self.demonstrations.seeds):
            raise ValueError(
                f"mend.votes is {self.mend.votes}; expected at most the {len(self.demonstrations.seeds)} "
                "demonstrations.seeds"
            )
        return self

    @model_validator(mode="after")
    def _both_losses_of_icl(self) -> Distill:
        """That method is the sum of a hard loss and a soft one (arXiv 2212.10670, figure 2)."""
        if self.method == "icl" and "ce" not in self.objective.model_fields_set:
            object.__setattr__(self, "objective", self.objective.model_copy(update={"ce": 1.0}))
        return self

    @model_validator(mode="after")
    def _text_present(self) -> Distill:
        if self.method != "none" and self.objective.lm > 0 and self.text is None:
            raise ValueError(f"objective.lm is {self.objective.lm:g}; expected plain text in distill.text")
        return self

    @model_validator(mode="after")
    def _nothing_ignored_in_silence(self) -> Distill:
        """A key that the method doesn't read must have its default, which a resolved recipe writes out."""
        changed = [
            key for key, readers in _READ_BY.items() if self.method not in readers and self._changed(key)
        ]
        if changed:
            methods = " or ".join(_READ_BY[changed[0]])
            raise ValueError(
                f"method {self.method} has no {', '.join(changed)}; expected method {methods} with it"
            )
        if self.on_policy != OnPolicy() and not self.objective.on_policy and self.method == "context":
            raise ValueError("on_policy is set and objective.on_policy is 0; expected more, or no on_policy")
        if self.student.lora != Lora() and self.student.adapter != "lora":
            raise ValueError(
                f"student.lora is set and student.adapter is {self.student.adapter}; expected lora"
            )
        return self

    def _changed(self, key: str) -> bool:
        spec: Spec = self
        *above, name = key.split(".")
        for part in above:
            spec = getattr(spec, part)
        return bool(getattr(spec, name) != type(spec).model_fields[name].get_default(call_default_factory=True))

    @model_validator(mode="after")
    def _icl_can_run(self) -> Distill:
        if self.method != "icl" or self.teacher is None:
            return self
        if self.objective.kl == 0:
            raise ValueError("objective.kl is 0; expected more: method icl learns from the teacher")
        if self.icl.paradigm == "meta" and not self.icl.tasks:
            raise ValueError("icl.tasks is empty; expected the tasks that paradigm meta tunes on")
        if self.icl.teacher_epochs and self.teacher.load_in in ("8bit", "4bit"):
            raise ValueError(
                f"icl.teacher_epochs is {self.icl.teacher_epochs} and the teacher's load_in "
                f"{self.teacher.load_in}, which isn't trained; expected fp32 or bf16, or teacher_epochs 0"
            )
        return self

    @model_validator(mode="after")
    def _domains_present(self) -> Distill:
        if self.method != "meta_kd":
            return self
        if self.meta_kd is None:
            raise ValueError("method meta_kd needs the section distill.meta_kd, which names the domains")
        if self.teacher is not None and self.teacher.load_in != "fp32":
            raise ValueError(
                f"method meta_kd trains its teacher; found load_in {self.teacher.load_in}, expected fp32"
            )
        if self.objective.over != "verbalizers" or self.objective.lm > 0:
            found = f"objective.over {self.objective.over} and objective.lm {self.objective.lm:g}"
            raise ValueError(f"method meta_kd; found {found}, expected verbalizers and 0")
        return self
