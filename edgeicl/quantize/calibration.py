"""The token sequences that importance is measured on and GPTQ gets its inputs from.

They are what the deployed student will read, and plain text where a recipe names some.
"""

from __future__ import annotations

import random
from pathlib import Path

from edgeicl.models.loading import load_tokenizer
from edgeicl.specs.source import TextSource
from edgeicl.specs.task import Task
from edgeicl.tasks.prompt import PromptEncoder
from edgeicl.tasks.readers import read_examples
from edgeicl.tasks.text_blocks import text_blocks
from edgeicl.tasks.text_source import read_texts


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


def calibration_text(
    source: TextSource, student: Path, *, blocks: int, block_tokens: int, seed: int, base_folder: Path
) -> list[list[int]]:
    """Token ids of `blocks` pieces of the source's documents, drawn by `seed`; all, if there are fewer.

    Raises:
        DataError: text that can't be read, or that fills no block.
    """
    documents = read_texts(source, base_folder=base_folder)
    found = text_blocks(load_tokenizer(student), documents, block_tokens=block_tokens).tolist()
    return found if len(found) <= blocks else random.Random(seed).sample(found, blocks)
