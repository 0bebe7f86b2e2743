"""The tasks that a recipe of method `icl` names, read and dealt out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgeicl.distill.icl_data import IclData, Shown, deal_meta, deal_multitask
from edgeicl.distill.task_run import TaskRun
from edgeicl.distill.tuned_tasks import TunedTask, without_texts
from edgeicl.errors import DataError
from edgeicl.specs.manifest import Deviation
from edgeicl.tasks.example import Example
from edgeicl.tasks.leakage import Leakage, by_columns
from edgeicl.tasks.prompt import PromptEncoder
from edgeicl.tasks.readers import read_examples


def read_icl_data(run: TaskRun) -> tuple[IclData, tuple[Deviation, ...]]:
    """Who sees what under the recipe's paradigm; a deviation for each task with texts of the evaluation data.

    `distill.leakage` is about the target task's own data; other tasks always leave such texts out.

    Raises:
        DataError: too few examples, leakage that is to be refused, a tuned task that is the target in disguise,
            or a source of demonstrations where what is tuned on is shown.
    """
    task, settings = run.recipe.task, run.recipe.distill
    evaluated = by_columns(task.pattern, run.evaluated)
    deviations: list[Deviation] = []

    def clean(where: str, encoder: PromptEncoder, examples: Sequence[Example], leakage: Leakage) -> TunedTask:
        whole = TunedTask(where, encoder, tuple(examples))
        kept, told = without_texts(whole, evaluated, leakage=leakage)
        deviations.extend(told)
        return kept

    target = clean("task.train", run.encoder, run.train, settings.leakage)
    others = []
    for number, further in enumerate(settings.icl.tasks):
        encoder = run.tuning_encoder(further)
        examples = read_examples(further.train, labels=encoder.labels, base_folder=run.base_folder)
        others.append(clean(f"distill.icl.tasks[{number}], {further.train}", encoder, examples, "drop"))
    sources = {
        seed: clean(f"distill.demonstrations.source, seed {seed}", run.encoder, examples, settings.leakage)
        for seed, examples in run.demonstration_sources().items()
    }
    return _dealt(run, target, others, sources), tuple(deviations)


def _dealt(
    run: TaskRun, target: TunedTask, others: Sequence[TunedTask], sources: Mapping[int, TunedTask]
) -> IclData:
    icl, demonstrations, seed = run.recipe.distill.icl, run.recipe.distill.demonstrations, run.recipe.seed
    shown = Shown(demonstrations.count, demonstrations.balanced, demonstrations.seeds, votes=icl.votes)
    if icl.paradigm == "meta":
        return deal_meta(target, others, shown, sources=sources, seed=seed)
    if sources:
        raise DataError(
            "distill.demonstrations.source is given under paradigm multitask, which shows the very examples "
            "that it tunes on; expected none",
            next_step="leave it out and name its data in task.train, or set distill.icl.paradigm: meta",
        )
    return deal_multitask(
        target,
        others,
        shown,
        train_examples=icl.train_examples,
        dev_examples=icl.dev_examples,
        seed=seed,
    )
