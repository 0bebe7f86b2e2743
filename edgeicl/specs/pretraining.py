"""How a built-in model is trained from nothing on the built-in family: `edgeicl pretrain`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from edgeicl.specs.builtin_names import TaskName
from edgeicl.specs.spec import Name, Share, Spec

EXAMPLE_TOKENS = 21
"""Most tokens that one example of the built-in family has, label and line end included."""


class Shape(Spec):
    """Size of an OPT-architecture model."""

    layers: int = Field(ge=1)
    width: int = Field(ge=1)
    heads: int = Field(ge=1)
    ffn_width: int = Field(ge=1)
    positions: int = Field(ge=1)
    initial_std: float = Field(gt=0.0)

    @model_validator(mode="after")
    def _width_divides(self) -> Shape:
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"width {self.width}; expected an even multiple of heads, which are {self.heads}")
        return self


class TrainingPhase(Spec):
    """A stretch of training with a learning rate of its own."""

    steps: int = Field(ge=1)
    learning_rate: float = Field(gt=0.0, description="Highest, after a warm-up; falls over the phase.")
    warmup_steps: int = Field(200, ge=1)
    final_learning_rate_ratio: float = Field(0.1, ge=0.0, le=1.0)


class Phase(TrainingPhase):
    """A stretch of the curriculum: how many steps, and which kinds of text they are drawn from.

    *Named* examples have the word of their task between premise and hypothesis, so that each tells all.
    An *episode* is several examples that share an unnamed task. A *story* is some premises and, in another
    order, a true conclusion from each: plain text that asks nothing. One batch holds one kind.
    """

    tokens_per_step: int = Field(ge=1)
    episode_examples: int = Field(ge=1, description="Examples in an unnamed episode, the query included.")
    named_examples: int = Field(1, ge=1)
    named_share: float = Field(ge=0.0, le=1.0, description="Share of the batches, as is the next.")
    named_entailment_share: float = Field(
        0.6, ge=0.0, le=1.0, description="Share of named texts that ask for entailment, the hardest task."
    )
    story_share: float = Field(0.0, ge=0.0, le=1.0)
    tasks: tuple[TaskName, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _shares_within_all(self) -> Phase:
        shares = self.named_share + self.story_share
        # a hair of slack: 0.9 + 0.1 may come out above 1 in floating point
        if shares > 1.0 + 1e-9:
            raise ValueError(f"named_share and story_share together {shares:g}; expected at most 1")
        return self


class Pretraining(Spec):
    """A whole pretraining recipe."""

    version: Literal[1]
    name: Name
    seed: int = 0
    model: Shape
    weight_decay: float = Field(0.01, ge=0.0)
    max_gradient_norm: float = Field(1.0, gt=0.0)
    language_model_weight: Share = Field(0.3, description="Loss on all other tokens, against 1 on labels.")
    out_of_domain_share: float = Field(0.5, ge=0.0, le=1.0)
    story_premises: int = Field(3, ge=1, le=3)
    phases: tuple[Phase, ...] = Field(min_length=1)
    checkpoint_every_steps: int = Field(250, ge=1)

    @model_validator(mode="after")
    def _episodes_fit(self) -> Pretraining:
        for number, phase in enumerate(self.phases, 1):
            premises = self.story_premises if phase.story_share else 0
            examples = max(phase.episode_examples, phase.named_examples, premises)
            tokens = 1 + examples * EXAMPLE_TOKENS
            if tokens > self.model.positions:
                raise ValueError(
                    f"phase {number}: texts of {examples} examples, up to {tokens} tokens; "
                    f"expected at most model.positions, {self.model.positions}"
                )
        return self
