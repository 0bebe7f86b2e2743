"""The token sequences that importance is measured on: what the deployed student will read."""

from __future__ import annotations

import random
from pathlib import Path

from edgeicl.models.loading import load_tokenizer
from edgeicl.specs.task import Task
from edgeicl.tasks.prompt import PromptEncoder
from edgeicl.tasks.readers import read_examples


def calibration_sequences(
    task: Task, student: Path, *, examples: int, seed: int, base_folder: Path, behind_prefix: bool
) -> list[list[int]]:
    """Token ids of the student's prompts (no demonstrations) for `examples` training examples.

    They are drawn without replacement by `seed`; all of them, if there are fewer. Behind a prefix they have no
    leading tokens: those are in it.

    Raises:
        DataError: training data or tokenizer that can't be read.
    """
    encoder = PromptEncoder(
        load_tokenizer(student),
        pattern=task.pattern,
        verbalizers=task.verbalizers,
        separator=task.separator,
    )
    found = read_examples(task.train, labels=encoder.labels, base_folder=base_folder)
    chosen = found if len(found) <= examples else random.Random(seed).sample(found, examples)
    return encoder.queries(chosen) if behind_prefix else encoder.prompts(chosen)
