"""What method `meta_kd` needs besides teacher and student: domains, weights, and what is matched."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from edgeicl.specs.source import Source
from edgeicl.specs.spec import Name, Share, Spec


class InstanceWeights(Spec):
    """How much each training example tells of other domains: its cosine to prototypes of all domains."""

    prototypes: Literal["class", "domain", "none"] = Field(
        "class",
        description="Centroids: of each class in each domain; of each domain, as in the public code; "
        "none: all weights are 1.",
    )
    embedding: Literal["mean", "last_token"] = Field(
        "mean", description="An example's embedding: the teacher's last hidden states, before it is trained."
    )
    own_domain_share: float = Field(
        0.5, ge=0.0, le=1.0, description="Share of the example's own domain; the rest is that of all others."
    )


class Confusion(Spec):
    """The term that makes the meta-teacher's hidden states alike in all domains."""

    weight: Share = Field(0.5, description="Weight of the term beside the classification loss; 0: none.")
    labels: Literal["wrong", "shuffled", "reversed"] = Field(
        "wrong",
        description="Domain the head is to answer: a wrong one; that of another example of the batch, as in "
        "the public code; reversed: the true one, with the gradient into the model reversed.",
    )


class Matching(Spec):
    """First stage of a student: its inner states follow the teacher's. Weights of the terms."""

    epochs: int = Field(10, ge=0, description="Passes over the domain's examples; 0: no such stage.")
    hidden: Share = Field(1.0, description="Hidden states, through a learned projection.")
    attention: Share = Field(1.0, description="Attention probabilities.")
    domain_feature: Share = Field(0.5, description="What the teacher's domain head reads.")
    domain_target: Literal["feature", "random_projection"] = Field(
        "feature",
        description="The domain feature itself; or, as in the public code, a fixed random projection of it.",
    )
    expertise: bool = Field(True, description="Weigh examples by how well the teacher answers them.")

    @model_validator(mode="after")
    def _something_to_match(self) -> Matching:
        if self.epochs and not (self.hidden or self.attention or self.domain_feature):
            raise ValueError(
                f"hidden, attention and domain_feature are all 0 with epochs {self.epochs}; expected one above "
                "0, or epochs 0"
            )
        return self


class MetaKD(Spec):
    """Meta knowledge distillation (arXiv 2012.01266): one teacher for all domains, a student for one."""

    domain: Name = Field(description="The domain that the student is for.")
    domain_column: str | None = Field(
        None, description="Column of `task.train` that names each example's domain, such as MNLI's genre."
    )
    domains: dict[Name, Source] = Field(
        default_factory=dict,
        description="Instead of a column: the other domains' training data; the student's is `task.train`.",
    )
    domain_examples: int | None = Field(
        None, ge=1, description="Use at most this many training examples of the student's domain."
    )
    domain_in_teacher: bool = Field(
        True, description="Whether the meta-teacher is trained on the student's domain too."
    )
    teacher_steps: int = Field(
        500, ge=1, description="Steps of each teacher, in whole passes over its examples, be they few or many."
    )
    teacher_learning_rate: float = Field(3e-4, gt=0.0, description="Highest, of each teacher's training.")
    weights: InstanceWeights = InstanceWeights()
    confusion: Confusion = Confusion()
    matching: Matching = Matching()
    baselines: tuple[Literal["single_domain", "mixed_domain"], ...] = Field(
        ("single_domain", "mixed_domain"),
        description="Also distilled, without weights and confusion: from a teacher of the domain alone, and "
        "from one of all domains.",
    )

    @model_validator(mode="after")
    def _domain_head_trained(self) -> MetaKD:
        if self.confusion.weight == 0 and self.matching.domain_feature > 0:
            raise ValueError(
                "confusion.weight is 0, so no domain head is trained; expected matching.domain_feature: 0 too"
            )
        return self

    @model_validator(mode="after")
    def _domains_told_one_way(self) -> MetaKD:
        if (self.domain_column is None) == (not self.domains):
            raise ValueError("expected either domain_column or domains")
        if self.domain in self.domains:
            raise ValueError(
                f"domains names {self.domain!r} too, whose examples are task.train; expected the others alone"
            )
        return self
