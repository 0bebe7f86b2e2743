"""Training a quantized student to be again what it was: how, and what came of it."""

from __future__ import annotations

from pydantic import Field

from edgeicl.specs.spec import Spec


class Recover(Spec):
    """How a student is trained once its plan is chosen, with its weights rounded in the formats of the plan."""

    steps: int = Field(ge=1, description="Steps of training.")
    learning_rate: float = Field(
        0.01,
        gt=0.0,
        description="Peak learning rate, of weights in units of their block's scale: 1 is a whole level.",
    )
    batch_size: int = Field(16, ge=1, description="Sequences of each kind in a step.")
    queries: int = Field(
        2048, ge=8, description="Queries learned from at most: the teacher's, or examples of `train`."
    )
    text_blocks: int = Field(
        1024, ge=8, description="Pieces of 128 tokens drawn from `calibration_text`, where there is one."
    )
    own_texts: int = Field(
        0,
        ge=0,
        description="Texts of 128 tokens that the student writes itself to learn from (arXiv 2305.17888); of "
        "use to one that writes text and has little of it to read.",
    )


class Judged(Spec):
    """A student in training, on what it is not trained on."""

    step: int = Field(description="Steps done; at 0 it is as the plan's solver rounded it.")
    kl_to_student: float = Field(
        description="KL(unquantized student || this one) in nats a token, the mean over kinds of sequences."
    )
    kl_to_teacher: float | None = Field(
        None, description="KL(teacher || this one) in nats a query, where the teacher's answers are known."
    )

    @property
    def loss(self) -> float:
        """What training lowers."""
        return self.kl_to_student + (self.kl_to_teacher or 0.0)


class Recovery(Spec):
    """A whole training, and which of its students was taken."""

    sequences: int = Field(description="Sequences learned from.")
    held_out: int = Field(description="Sequences judged on.")
    judged: tuple[Judged, ...] = Field(
        min_length=1, description="What was judged, in the order of steps; the first is at 0."
    )
    best_step: int = Field(description="Step of the student taken; 0: training made nothing better.")

    def at(self, step: int) -> Judged:
        """What was judged after so many steps."""
        return next(one for one in self.judged if one.step == step)
