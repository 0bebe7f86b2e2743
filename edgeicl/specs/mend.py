"""MEND: the hypernetwork that turns demonstrations into vectors, and how it is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from edgeicl.specs.model_name import ModelName
from edgeicl.specs.spec import Share, Spec
from edgeicl.specs.tuning_task import TuningTask


class Hypernetwork(Spec):
    """The model that reads demonstrations."""

    model: ModelName = Field(
        description="Decoder that it starts from, of any width, with the student's tokenizer."
    )


class OnText(Spec):
    """Stage 1, on `distill.text`: the start of a document is compressed, and the rest is read after it."""

    steps: int = Field(2000, ge=0, description="Training steps; 0 leaves the stage out.")
    learning_rate: float = Field(5e-5, gt=0.0, description="Highest; the paper's unless told.")
    batch_size: int = Field(1, ge=1, description="Documents in one step, over all processes.")
    context_share: float = Field(
        0.8, gt=0.0, lt=1.0, description="Share of a document's tokens that is compressed."
    )
    document_tokens: int = Field(
        1024, ge=2, description="Tokens of a document that are used; what is behind them is left out."
    )


class OnTasks(Spec):
    """Stage 2, on tasks: cross-entropy of the label, plus the divergence from plain demonstrations."""

    steps: int = Field(10_000, ge=0, description="Training steps; 0 leaves the stage out.")
    learning_rate: float = Field(1e-5, gt=0.0, description="Highest; the paper's unless told.")
    batch_size: int = Field(1, ge=1, description="Demonstration sets in one step, over all processes.")
    queries: int = Field(
        1, ge=1, description="Queries after each set; several share the cost of compressing it."
    )
    kl: Share = Field(1.0, description="Weight of the divergence: the paper's lambda.")
    kl_over: Literal["query", "label"] = Field(
        "query",
        description="Where it is taken: at every token of query and label (the released code), or where the "
        "label is read.",
    )


class Mend(Spec):
    """MEND (arXiv 2403.06914); warm-up, decay, gradient norm, checkpoints are those of `distill.training`.

    So is `mixed_precision`, which is that of the hypernetwork alone: the frozen student computes in `load_in`.
    """

    hypernetwork: Hypernetwork
    vectors: int = Field(100, ge=1, description="Vectors that stand for one demonstration set.")
    placeholders: Literal["normal", "vocabulary"] = Field(
        "vocabulary",
        description="What the placeholders start as: N(0, 0.02), or the embeddings of random tokens.",
    )
    load_in: Literal["fp32", "bf16", "8bit", "4bit"] = Field(
        "fp32",
        description="Precision of the frozen student while the hypernetwork learns (8bit in the paper); 8bit "
        "and 4bit need a CUDA device.",
    )
    on_text: OnText = OnText()
    on_tasks: OnTasks = OnTasks()
    tasks: tuple[TuningTask, ...] = Field(
        (),
        description="Meta-training tasks of stage 2. Whatever `leakage` says, texts that the evaluation data, "
        "the demonstration sets or the held-out examples have too are left out, and counted as a deviation.",
    )
    target: Literal["unseen", "seen"] = Field(
        "unseen",
        description="Whether stage 2 may train on `task` itself: unseen, as in the paper, or on its transfer "
        "examples too; never on texts of its demonstration sets, held-out examples or evaluation data.",
    )
    votes: int = Field(
        1, ge=1, description="Demonstration sets that are deployed; the majority of their answers counts."
    )

    @model_validator(mode="after")
    def _something_to_train_on(self) -> Mend:
        if self.on_text.steps == 0 and self.on_tasks.steps == 0:
            raise ValueError("on_text.steps and on_tasks.steps are both 0; expected at least one above 0")
        if self.on_tasks.steps and self.target == "unseen" and not self.tasks:
            raise ValueError(
                "tasks is empty and the target unseen; expected meta-training tasks, target: seen, or "
                "on_tasks.steps: 0"
            )
        return self
