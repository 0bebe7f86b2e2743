"""In-context learning distillation: the tasks that are tuned on, and how."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from edgeicl.specs.source import Source
from edgeicl.specs.spec import Spec
from edgeicl.specs.tuning_task import TuningTask


class Icl(Spec):
    """In-context learning distillation (arXiv 2212.10670).

    The paper publishes neither its learning rates nor the weights of its losses (`distill.objective`), the
    number of demonstration sets that vote, or the text it models: their defaults are this program's choice.
    """

    paradigm: Literal["meta", "multitask"] = Field(
        "meta",
        description="meta: tuned on `tasks`, then the target task is met with demonstrations alone; multitask: "
        "tuned on a few examples of the target task and of `tasks`.",
    )
    tasks: tuple[TuningTask, ...] = Field(
        (), description="meta: the tasks that are tuned on; multitask: target tasks beside `task`."
    )
    train_examples: int = Field(
        32, ge=2, description="multitask: examples of each task that are shown and asked for."
    )
    dev_examples: int = Field(
        32, ge=1, description="multitask: further examples of `task`, on which the teacher's gain is measured."
    )
    episodes: int = Field(
        8192, ge=1, description="Training sequences: demonstrations and a query of one task, drawn once."
    )
    labels: Literal["query", "all"] = Field(
        "query",
        description="Where an episode has a loss: at its query (the paper), or at its demonstrations too, "
        "which are then drawn without balancing, for counts would tell the last labels.",
    )
    teacher_epochs: int = Field(
        1,
        ge=0,
        description="Passes over the episodes in which the teacher is tuned before it teaches, as the paper's "
        "teachers were; 0: it teaches as it is.",
    )
    teacher_learning_rate: float = Field(
        1e-4, gt=0.0, description="Highest learning rate of the teacher; the rest is as in `training`."
    )
    soft_loss: Literal["constant", "fading"] = Field(
        "constant", description="fading: the weight `objective.kl` falls linearly to 0 over the training."
    )
    text_block_tokens: int = Field(
        64,
        ge=2,
        description="Tokens of the block of `text` beside each episode; unused where `objective.lm` is 0.",
    )
    votes: int = Field(
        3, ge=1, description="Demonstration sets that the deployed student reads; the majority is its answer."
    )

    @field_validator("tasks")
    @classmethod
    def _distinct(cls, tasks: tuple[TuningTask, ...]) -> tuple[TuningTask, ...]:
        for number, task in enumerate(tasks):
            if task in tasks[:number]:
                raise ValueError(f"{task.train} stands there twice; expected each task once")
        return tasks

    @model_validator(mode="after")
    def _nothing_in_vain(self) -> Icl:
        """Keys that the others leave without effect; at their defaults they ask for nothing."""
        idle = {
            "train_examples": ("multitask", self.paradigm == "meta"),
            "dev_examples": ("multitask", self.paradigm == "meta"),
            "teacher_learning_rate": ("teacher_epochs above 0", self.teacher_epochs == 0),
        }
        for key, (used_with, is_idle) in idle.items():
            found = getattr(self, key)
            if is_idle and found != type(self).model_fields[key].default:
                raise ValueError(f"icl.{key} is {found}, which is used with {used_with} alone; leave it out")
        return self


def same_question(one: Source, other: Source) -> bool:
    """Whether two sources are of one task: they differ in no more than which of its rows are read."""
    rows = {"split", "limit", "seed"}
    return one.model_dump(exclude=rows) == other.model_dump(exclude=rows)
