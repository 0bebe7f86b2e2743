"""How a built-in model is trained from nothing on the built-in family: `edgeicl pretrain`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeicl.specs.recipe import Name, Share, Spec


class Shape(Spec):
    """Size of an OPT-architecture model."""

    layers: int = Field(ge=1)
    width: int = Field(ge=1)
    heads: int = Field(ge=1)
    ffn_width: int = Field(ge=1)
    positions: int = Field(ge=1)
    initial_std: float = Field(gt=0.0)


class Phase(Spec):
    """A stretch of the curriculum: how many steps, and which kinds of text they are drawn from.

    *Named* examples have the word of their task between premise and hypothesis, so that each tells all.
    An *episode* is several examples that share an unnamed task. A *story* is some premises and, in another
    order, a true conclusion from each: plain text that asks nothing. One batch holds one kind.
    """

    steps: int = Field(ge=1)
    learning_rate: float = Field(gt=0.0, description="Highest, after a warm-up; falls over the phase.")
    warmup_steps: int = Field(200, ge=1)
    final_learning_rate_ratio: float = Field(0.1, ge=0.0, le=1.0)
    tokens_per_step: int = Field(ge=1)
    episode_examples: int = Field(ge=1, description="Examples in an unnamed episode, the query included.")
    named_examples: int = Field(1, ge=1)
    named_share: float = Field(ge=0.0, le=1.0, description="Share of the batches, as is the next.")
    named_entailment_share: float = Field(
        0.6, ge=0.0, le=1.0, description="Share of named texts that ask for entailment, the hardest task."
    )
    story_share: float = Field(0.0, ge=0.0, le=1.0)
    tasks: tuple[str, ...] = Field(min_length=1)


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
