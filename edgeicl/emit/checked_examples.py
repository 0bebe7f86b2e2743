"""The examples that an artifact is compared with its student on."""

from __future__ import annotations

import random
from pathlib import Path

from edgeicl.specs.recipe import Recipe
from edgeicl.specs.source import Source
from edgeicl.tasks.example import Example
from edgeicl.tasks.readers import read_examples


def checked_examples(recipe: Recipe, base_folder: Path) -> dict[str, list[Example]]:
    """Of each kind of evaluation data as many as the recipe's limits are checked on, drawn with its seed."""
    task = recipe.task
    found = {"in_domain": _drawn(recipe, task.in_domain, base_folder)}
    if task.out_of_domain is not None:
        found["out_of_domain"] = _drawn(recipe, task.out_of_domain, base_folder)
    return found


def _drawn(recipe: Recipe, source: Source, base_folder: Path) -> list[Example]:
    examples = read_examples(source, labels=tuple(recipe.task.verbalizers), base_folder=base_folder)
    count = min(len(examples), recipe.limits.accuracy_examples)
    return random.Random(f"emit/{recipe.seed}").sample(examples, count)
