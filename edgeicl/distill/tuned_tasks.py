"""Tasks that a model is tuned on, and what they must not hold: evaluation texts, or the target's question."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from edgeicl.errors import DataError
from edgeicl.specs.manifest import Deviation
from edgeicl.tasks.example import Example
from edgeicl.tasks.leakage import Leakage, TextKey, by_columns, text_keys, unevaluated
from edgeicl.tasks.prompt import PromptEncoder

# So many texts labelled alike in two tasks are no chance: 1 in 2^19 for two labels.
_SHARED_TEXTS = 20


@dataclass(frozen=True)
class TunedTask:
    """A task: where it stands in the recipe, how its examples are written, and the examples."""

    where: str
    encoder: PromptEncoder
    examples: tuple[Example, ...]


def without_texts(
    task: TunedTask, evaluated: Mapping[TextKey, Example], *, leakage: Leakage = "drop"
) -> tuple[TunedTask, tuple[Deviation, ...]]:
    """`task` without texts of the evaluation data (a deviation); repeated texts count once.

    Raises:
        DataError: there are such texts, and `leakage` is to be refused.
    """
    texts = by_columns(task.encoder.pattern, task.examples)
    kept, told = unevaluated(texts, evaluated, leakage=leakage, where=task.where)
    return TunedTask(task.where, task.encoder, tuple(kept.values())), told


def refuse_the_same_question(tuned: TunedTask, target: TunedTask) -> None:
    """DataError where the texts that both tasks have are labelled alike, be it by other words."""
    labels = dict(
        zip(
            text_keys(tuned.encoder.pattern, tuned.examples),
            (example.label for example in tuned.examples),
            strict=True,
        )
    )
    told: dict[str, set[str]] = defaultdict(set)
    shared = 0
    for key, example in zip(text_keys(target.encoder.pattern, target.examples), target.examples, strict=True):
        if key in labels:
            told[labels[key]].add(example.label)
            shared += 1
    answers = [label for found in told.values() for label in found]
    one_to_one = len(told) == len(answers) == len(set(answers))
    if shared >= _SHARED_TEXTS and one_to_one and len(told) > 1:
        alike = ", ".join(f"{old!r} there is {new!r} here" for old, (new,) in told.items())
        raise DataError(
            f"{tuned.where} asks what the target task asks: all {shared} texts that both have are labelled "
            f"alike ({alike}); expected a task that leaves the target unseen",
            next_step="leave it out of distill.icl.tasks, or take another target task",
        )
