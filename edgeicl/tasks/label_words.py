"""What a recipe's task leaves to its data: label words of LAMA and MetaICL; and LAMA's templates."""

from __future__ import annotations

from pathlib import Path

from edgeicl.errors import DataError
from edgeicl.specs.lama_template import around_answer, is_template
from edgeicl.specs.recipe import Recipe
from edgeicl.tasks.readers import labelled_rows


def with_label_words(recipe: Recipe, base_folder: Path) -> Recipe:
    """`recipe` with every pattern and label word as it will be used.

    A LAMA template becomes a pattern, and its end the front of the separator. Verbalizers are filled by
    `label_pattern` where there are none: with all labels that occur in the task's data, evaluation included,
    as answers or as options, in the order of the alphabet. So the candidate words of a LAMA relation are its
    objects, whoever is asked about.

    Raises:
        DataError: data that can't be read, or fewer than two labels.
    """
    task = recipe.task
    if is_template(task.pattern):
        pattern, after = around_answer(task.pattern)
        task = task.model_copy(update={"pattern": pattern, "separator": after + task.separator})
    if task.label_pattern is not None and not task.verbalizers:
        words = {label: task.label_pattern.format(label=label) for label in _labels(recipe, base_folder)}
        task = task.model_copy(update={"verbalizers": words})
    return recipe if task is recipe.task else recipe.model_copy(update={"task": task})


def _labels(recipe: Recipe, base_folder: Path) -> list[str]:
    task, shown = recipe.task, recipe.distill.demonstrations
    sources = [source for source in (task.train, task.in_domain, task.out_of_domain) if source is not None]
    if shown.source is not None:
        sources += [shown.source.for_seed(seed) for seed in shown.seeds]
    labels: set[str] = set()
    for source in sources:
        for _, row, label in labelled_rows(source, base_folder):
            options = row.get(source.options) if source.options else None
            more = options if isinstance(options, list) else ()
            labels |= {label, *(source.map_labels.get(each, each) for each in more if isinstance(each, str))}
    if len(labels) < 2:
        raise DataError(
            f"task.label_pattern: found the labels {sorted(labels)} in the data; expected at least two",
            next_step="check `label:`, `where:` and `drop_labels:` of the task's sources",
        )
    return sorted(labels)
