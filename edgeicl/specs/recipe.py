"""The recipe: what to build. Names a teacher, a student and a task, and holds no fact about a device."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from edgeicl.specs import builtin_names
from edgeicl.specs.local_path import local_path
from edgeicl.specs.model_name import ModelName
from edgeicl.specs.nearest import one_of
from edgeicl.specs.pattern import Pattern

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Share = Annotated[float, Field(ge=0.0)]


class Spec(BaseModel):
    """Base of everything that crosses a boundary: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Spec):
    """Where labelled examples come from."""

    source: str = Field(
        pattern=r"^(file|hub|builtin):.+", description="`file:PATH`, `hub:DATASET` or `builtin:nli[/TASK]`."
    )
    split: str | None = Field(
        None,
        validate_default=True,
        description="Split to read, of `hub:` and `builtin:`; a `file:` has none.",
    )
    label: str = Field("label", description="Column that holds the label.")
    drop_labels: tuple[str, ...] = Field((), description="Rows with these labels are left out.")
    map_labels: dict[str, str] = Field(
        default_factory=dict, description="Label in the data -> label of the verbalizers."
    )
    limit: int | None = Field(
        None, ge=1, description="Use at most this many rows, drawn by `seed` after dropping labels."
    )
    seed: int = Field(0, description="Seed of `limit`, and of a built-in source.")

    @field_validator("source")
    @classmethod
    def _data_there(cls, source: str, info: ValidationInfo) -> str:
        """Files only where the context says where paths start: a recipe can be read without its data."""
        kind, _, name = source.partition(":")
        if kind == "builtin":
            builtin_names.check_task(name)
        if kind == "file" and info.context is not None:
            path = local_path(name, info.context["base_folder"])
            if not path.is_file():
                found = f"{path.absolute()} is a folder" if path.is_dir() else f"no file {path.absolute()}"
                raise ValueError(f"{found}; expected a data file")
        return source

    @field_validator("split")
    @classmethod
    def _split_where_it_means_something(cls, split: str | None, info: ValidationInfo) -> str | None:
        kind = info.data.get("source", "").partition(":")[0]
        if kind == "file" and split is not None:
            raise ValueError(f"{split!r}; expected none: a `file:` has no splits (`split: null` takes it out)")
        if kind in ("hub", "builtin") and split is None:
            raise ValueError(f"missing; expected the split of `{kind}:` to read, such as train or test")
        if kind == "builtin" and split is not None:
            builtin_names.check_split(split)
        return split

    def __str__(self) -> str:
        return self.source if self.split is None else f"{self.source} ({self.split})"


class Task(Spec):
    """The text around an example, the words for its labels, and the data."""

    pattern: Pattern = Field(
        description="Text of one example, with its columns in braces; the label follows it."
    )
    verbalizers: dict[str, str] = Field(min_length=2, description="Label -> the word(s) that stand for it.")
    separator: str = Field("\n\n", description="Text between demonstrations.")
    train: Source = Field(description="Demonstrations and transfer examples are drawn from it.")
    in_domain: Source = Field(description="Evaluation data like `train`; no example of it is trained on.")
    out_of_domain: Source | None = Field(
        None, description="Evaluation data of another kind, for the same labels; reported, not limited."
    )

    @field_validator("verbalizers")
    @classmethod
    def _words_distinct(cls, words: dict[str, str]) -> dict[str, str]:
        if len(set(words.values())) != len(words) or not all(words.values()):
            raise ValueError("verbalizers must be distinct and not empty")
        return words

    @field_validator("train", "in_domain", "out_of_domain")
    @classmethod
    def _labels_mapped_to_words(cls, source: Source | None, info: ValidationInfo) -> Source | None:
        words = info.data.get("verbalizers")
        if source is not None and words is not None:
            wrong = [(old, new) for old, new in source.map_labels.items() if new not in words]
            if wrong:
                sent = ", ".join(f"{old!r} to {new!r}" for old, new in wrong)
                raise ValueError(f"map_labels sends {sent}; {one_of(wrong[0][1], words)}")
        return source


class Teacher(Spec):
    """The large model that sees demonstrations."""

    model: ModelName = Field(description="Hub name, local folder, or `builtin:nli-teacher`.")
    load_in: Literal["fp32", "bf16", "8bit", "4bit"] = Field(
        "fp32", description="Precision of the teacher's weights; 8bit and 4bit need a CUDA device."
    )


class Student(Spec):
    """The small model that is trained, compiled and deployed."""

    model: ModelName = Field(description="Hub name, local folder, or `builtin:nli-student`.")
    adapter: Literal["none"] = Field("none", description="What is trained; none: all weights.")


class Demonstrations(Spec):
    """The labelled examples that the teacher sees."""

    count: int = Field(16, ge=1, description="Demonstrations in one context.")
    balanced: bool = Field(True, description="As many of each label; else as drawn.")
    seeds: tuple[int, ...] = Field(
        (0, 1, 2, 3, 4),
        min_length=1,
        description="One demonstration set, and one student, for each; the best student is deployed.",
    )

    @field_validator("seeds")
    @classmethod
    def _seeds_distinct(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(seeds)) != len(seeds):
            raise ValueError("seeds must be distinct")
        return seeds


class Objective(Spec):
    """What the student is trained to do: weights of the loss terms."""

    kl: Share = Field(1.0, description="Weight of the divergence from the teacher's probabilities.")
    ce: Share = Field(0.0, description="Weight of the cross-entropy with the true labels.")
    temperature: float = Field(
        1.0, gt=0.0, description="Divides the logits of both before the divergence; above 1 softens them."
    )
    over: Literal["verbalizers", "vocabulary"] = Field(
        "verbalizers", description="Tokens whose probabilities the student learns: the label words, or all."
    )

    @model_validator(mode="after")
    def _something_to_learn(self) -> Objective:
        if self.kl == 0 and self.ce == 0:
            raise ValueError("kl and ce are both 0; expected at least one above 0")
        return self


class Training(Spec):
    """How the student, and the fine-tuned baseline, are trained."""

    learning_rate: float = Field(3e-4, gt=0.0, description="Highest, after the warm-up; then it falls.")
    epochs: int = Field(2, ge=1, description="Passes over the transfer examples.")
    batch_size: int = Field(32, ge=1, description="Examples in one step, over all processes.")
    warmup_ratio: float = Field(
        0.1, ge=0.0, le=1.0, description="Share of the steps in which the learning rate rises."
    )
    weight_decay: float = Field(0.0, ge=0.0, description="AdamW's decay of the weights.")
    max_gradient_norm: float = Field(1.0, gt=0.0, description="Longer gradients are scaled down to this.")
    checkpoint_every_steps: int = Field(
        50, ge=1, description="A killed training goes on from its last checkpoint."
    )


class Distill(Spec):
    """The recipe layer: teacher, student, and how one learns from the other."""

    method: Literal["context", "none"] = Field(
        "context", description="context: context distillation; none: the student is compiled as it is."
    )
    teacher: Teacher | None = Field(
        None, description="The large model that sees demonstrations; method none has none."
    )
    student: Student
    demonstrations: Demonstrations = Demonstrations()
    transfer_examples: int = Field(
        4096, ge=1, description="Examples of `train` on which the student learns the teacher's answers."
    )
    objective: Objective = Objective()
    training: Training = Training()
    require_gain: bool = Field(
        True, description="Refuse a teacher whose gain from demonstrations is not clearly above zero."
    )
    baseline_epochs: int = Field(20, ge=1, description="Epochs of pattern-based fine-tuning.")

    @model_validator(mode="after")
    def _teacher_present(self) -> Distill:
        if self.method != "none" and self.teacher is None:
            raise ValueError(f"method {self.method} needs a teacher")
        return self


class Quantize(Spec):
    """How precision is chosen and weights are rounded."""

    importance: Literal["sensitivity", "jaccard"] = Field(
        "sensitivity",
        description="What weighs a group: the measured rise of KL, or the Jaccard similarity of LSAQ.",
    )
    top_k: int = Field(10, ge=1, description="Tokens in each set of the Jaccard importance (LSAQ).")
    solver: Literal["rtn"] = Field("rtn", description="How weights become codes; rtn: round to nearest.")
    calibration_examples: int = Field(
        32, ge=1, description="Examples of `train` on which importance is measured."
    )
    plan: str | None = Field(None, description="A plan file to use as it is, instead of allocating.")


class Emit(Spec):
    """What the graph looks like."""

    head: Literal["full"] = Field("full", description="Logits of the graph; full: of the whole vocabulary.")


class Limits(Spec):
    """The build fails when the artifact is worse than this."""

    accuracy_drop_points: float = Field(1.0, ge=0.0, description="Points of accuracy the artifact may lose.")
    accuracy_examples: int = Field(512, ge=1, description="Examples it is checked on, drawn with the seed.")


class Recipe(Spec):
    """A whole recipe file."""

    version: Literal[1] = Field(description="Version of the recipe format.")
    name: Name = Field(description="Names the build: letters, digits, `.`, `_` and `-`.")
    seed: int = Field(0, description="Seed of everything drawn that has no seed of its own.")
    task: Task
    distill: Distill
    quantize: Quantize = Quantize()
    emit: Emit = Emit()
    limits: Limits = Limits()
    targets: tuple[str, ...] = Field((), description="Default targets; `--target` replaces them.")
