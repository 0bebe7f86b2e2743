"""How a small model is trained from nothing on real text, then to learn tasks from demonstrations."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from edgeicl.specs.model_name import ModelName
from edgeicl.specs.nearest import one_of
from edgeicl.specs.pattern import PlainPattern
from edgeicl.specs.pretraining import Shape, TrainingPhase
from edgeicl.specs.source import Source, TextSource
from edgeicl.specs.spec import Name, Share, Spec


class EpisodeTask(Spec):
    """A labelled data set that episodes are drawn from."""

    pattern: PlainPattern = Field(description="Text of one example; the label word follows it.")
    data: Source
    words: dict[str, str] = Field(
        default_factory=dict, description="Label -> its word where words are fixed, of one token."
    )


class TextPhase(TrainingPhase):
    """A stretch of training, and which kinds of text its batches are drawn from.

    *Plain* text is cut from the documents. An *episode* is several examples of one task, each with a label
    word that was drawn for this episode alone, so that only the examples before tell what a word stands for
    (symbol tuning, arXiv 2305.08298). A *document episode* needs no labels: its classes are documents, its
    examples passages of them.
    """

    tokens_per_step: int = Field(ge=1)
    plain_share: float = Field(ge=0.0, le=1.0, description="Share of batches of plain text, as are the next.")
    document_share: float = Field(0.0, ge=0.0, le=1.0)
    tasks: tuple[str, ...] = Field((), description="Which of the tasks; all unless named.")
    fixed_share: float = Field(
        0.0, ge=0.0, le=1.0, description="Share of the task episodes in which a class always has the same word."
    )
    plain_tokens: int = Field(512, ge=2, description="Tokens in a plain text.")
    episode_examples: int = Field(17, ge=1, description="Examples in an episode, the query included.")
    passage_tokens: int = Field(32, ge=1, description="Tokens of a passage in a document episode.")
    document_classes: int = Field(4, ge=2, description="Most documents in a document episode.")

    @model_validator(mode="after")
    def _shares_within_all(self) -> TextPhase:
        shares = self.plain_share + self.document_share
        if shares > 1.0 + 1e-9:
            raise ValueError(f"plain_share and document_share together {shares:g}; expected at most 1")
        return self


class TextPretraining(Spec):
    """A whole pretraining recipe on real text."""

    version: Literal[1]
    kind: Literal["text"] = Field(description="Tells it from the recipes of the built-in family.")
    name: Name
    seed: int = 0
    start_from: ModelName | None = Field(None, description="A model to go on from, with its tokenizer.")
    model: Shape | None = Field(None, description="Size of a new model.")
    tokenizer_from: ModelName | None = Field(
        None, description="A model whose tokenizer a new model gets; else one is learned from the texts."
    )
    vocabulary: int = Field(8192, ge=300, description="Tokens of a new model's byte-level BPE tokenizer.")
    embeddings: Literal["random", "cooccurrence"] = Field(
        "random",
        description="How a new model's token embeddings start; cooccurrence: from which tokens stand together.",
    )
    weight_decay: float = Field(0.01, ge=0.0)
    max_gradient_norm: float = Field(1.0, gt=0.0)
    mixed_precision: Literal["no", "bf16"] = Field("no", description="bf16: on GPUs that compute in it.")
    language_model_weight: Share = Field(0.1, description="Loss on an episode's other tokens; labels have 1.")
    label_words: tuple[str, ...] = Field(
        (),
        description="Words, one token each, that an episode draws its labels from; else any word.",
    )
    separator: str = Field("\n", description="Text between the examples of an episode.")
    document_pattern: PlainPattern = Field(
        "{text} answer:", description="Text of an example of a document episode."
    )
    text: tuple[TextSource, ...] = Field(min_length=1)
    tasks: dict[str, EpisodeTask] = Field(default_factory=dict)
    evaluation: dict[str, EpisodeTask] = Field(
        default_factory=dict, description="Accuracy is told on them; no text of theirs is in any episode."
    )
    phases: tuple[TextPhase, ...] = Field(min_length=1)
    checkpoint_every_steps: int = Field(500, ge=1)

    @model_validator(mode="after")
    def _new_or_given(self) -> TextPretraining:
        if (self.model is None) == (self.start_from is None):
            raise ValueError("expected either model (a new one) or start_from (one that is there)")
        if "{text}" not in self.document_pattern:
            raise ValueError(f"document_pattern {self.document_pattern!r}; expected one with {{text}} in it")
        for phase in self.phases:
            for name in phase.tasks:
                if name not in self.tasks:
                    raise ValueError(f"phases name the task {name!r}; {one_of(name, self.tasks)}")
        if not self.tasks and any(phase.plain_share + phase.document_share < 1 for phase in self.phases):
            raise ValueError("episodes are asked for and tasks is empty; expected at least one task")
        return self
