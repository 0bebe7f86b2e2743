"""Tasks that a model is tuned on, and what they must not hold: evaluation texts, or the target's question."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass

from edgeicl.distill.task_data import Leakage
from edgeicl.errors import DataError
from edgeicl.specs.manifest import Deviation
from edgeicl.specs.pattern import pattern_columns
from edgeicl.tasks.example import Example
from edgeicl.tasks.leakage import normalized
from edgeicl.tasks.prompt import PromptEncoder, query_text

# So many texts labelled alike in two tasks are no chance: 1 in 2^19 for two labels.
_SHARED_TEXTS = 20

TextKey = tuple[str, ...]


@dataclass(frozen=True)
class TunedTask:
    """A task: where it stands in the recipe, how its examples are written, and the examples."""

    where: str
    encoder: PromptEncoder
    examples: tuple[Example, ...]


def text_keys(pattern: str, examples: Sequence[Example]) -> list[TextKey]:
    """The texts of each example, the same whatever words and order a pattern has for them; see `normalized`."""
    for example in examples:
        query_text(pattern, example)  # tells a column that isn't there
    columns = pattern_columns(pattern)
    return [tuple(sorted(normalized(example.columns[name]) for name in columns)) for example in examples]


def without_texts(
    task: TunedTask, evaluated: Set[TextKey], *, leakage: Leakage = "drop"
) -> tuple[TunedTask, tuple[Deviation, ...]]:
    """`task` without texts of the evaluation data (a deviation); repeated texts count once.

    Raises:
        DataError: there are such texts, and `leakage` is to be refused.
    """
    distinct: dict[TextKey, Example] = {}
    for key, example in zip(text_keys(task.encoder.pattern, task.examples), task.examples, strict=True):
        distinct.setdefault(key, example)
    kept = tuple(example for key, example in distinct.items() if key not in evaluated)
    left_out = len(distinct) - len(kept)
    if left_out and leakage == "refuse":
        first = next(example for key, example in distinct.items() if key in evaluated)
        raise DataError(
            f"{task.where}: {left_out} of {len(distinct)} texts are in the evaluation data too, first "
            f"{first.where or 'an example'}; expected none",
            next_step="remove them from one of both, or leave them out with distill.leakage: drop",
        )
    deviation = Deviation(
        what="training examples",
        where=task.where,
        asked=str(len(distinct)),
        got=str(len(kept)),
        why=f"{left_out} texts are in the evaluation data too",
    )
    return TunedTask(task.where, task.encoder, kept), (deviation,) if left_out else ()


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
