"""A task: the text around an example, the words for its labels, and the data."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from edgeicl.specs.nearest import one_of
from edgeicl.specs.pattern import Pattern, PlainPattern, pattern_columns
from edgeicl.specs.source import Source
from edgeicl.specs.spec import Spec


class Task(Spec):
    """The text around an example, the words for its labels, and the data."""

    pattern: Pattern = Field(
        description="Text of one example, with its columns in braces; the label follows it. Or a template of "
        "LAMA, `[X] was born in [Y] .`, whose [X] is the column `sub`."
    )
    verbalizers: dict[str, str] = Field(
        default_factory=dict, description="Label -> the word(s) that stand for it; or give `label_pattern`."
    )
    label_pattern: PlainPattern | None = Field(
        None,
        description="Instead of `verbalizers`: every label of the data is an answer, written so; ` {label}`.",
    )
    score: Literal["sum", "mean"] = Field(
        "sum", description="A label's score: sum, or mean (MetaICL), of its tokens' log-probabilities."
    )
    scoring: Literal["direct", "channel"] = Field(
        "direct",
        description="What teacher and untrained baselines are asked: the label after the text, or the text "
        "after each label (MetaICL); whatever is trained and deployed reads the label after the text.",
    )
    channel_pattern: PlainPattern | None = Field(
        None,
        description="Text of an example after its label's word, for channel only; `pattern` unless given.",
    )
    separator: str = Field("\n\n", description="Text between demonstrations.")
    train: Source = Field(description="Demonstrations and transfer examples are drawn from it.")
    in_domain: Source = Field(description="Evaluation data like `train`; no example of it is trained on.")
    out_of_domain: Source | None = Field(
        None, description="Evaluation data of another kind, for the same labels; reported, not limited."
    )

    @field_validator("label_pattern")
    @classmethod
    def _label_alone(cls, pattern: str | None) -> str | None:
        if pattern is not None and pattern_columns(pattern) != ("label",):
            raise ValueError(f"{pattern!r}; expected {{label}} and no other column")
        return pattern

    @model_validator(mode="after")
    def _answers_named(self) -> Task:
        if self.label_pattern is None and len(self.verbalizers) < 2:
            raise ValueError(
                f"{len(self.verbalizers)} verbalizers; expected at least 2, or a label_pattern such as "
                "' {label}'"
            )
        if self.train.breakdown is not None:
            raise ValueError("train has a breakdown; expected one in in_domain or out_of_domain only")
        return self

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
        if source is not None and words:
            wrong = [(old, new) for old, new in source.map_labels.items() if new not in words]
            if wrong:
                sent = ", ".join(f"{old!r} to {new!r}" for old, new in wrong)
                raise ValueError(f"map_labels sends {sent}; {one_of(wrong[0][1], words)}")
        return source
