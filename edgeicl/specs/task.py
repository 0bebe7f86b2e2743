"""A task: the text around an example, the words for its labels, and the data."""

from __future__ import annotations

from pydantic import Field, ValidationInfo, field_validator

from edgeicl.specs.nearest import one_of
from edgeicl.specs.pattern import Pattern
from edgeicl.specs.source import Source
from edgeicl.specs.spec import Spec


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
