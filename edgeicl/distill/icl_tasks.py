"""The tasks that a recipe of method `icl` names, read and dealt out."""

from __future__ import annotations

from collections.abc import Sequence

from edgeicl.distill.icl_data import IclData, Shown, deal_meta, deal_multitask
from edgeicl.distill.task_run import TaskRun
from edgeicl.distill.tuned_tasks import TunedTask, text_keys, without_texts
from edgeicl.models.loading import load_tokenizer
from edgeicl.specs.manifest import Deviation
from edgeicl.specs.tuning_task import TuningTask
from edgeicl.tasks.prompt import PromptEncoder
from edgeicl.tasks.readers import read_examples


def read_icl_data(run: TaskRun) -> tuple[IclData, tuple[Deviation, ...]]:
    """Who sees what under the recipe's paradigm; a deviation for each task with texts of the evaluation data.

    Raises:
        DataError: too few examples, or a tuned task that is the target in disguise.
    """
    task, settings = run.recipe.task, run.recipe.distill
    evaluated = {key for examples in run.evaluation.values() for key in text_keys(task.pattern, examples)}
    given = [TunedTask("task.train", run.encoder, tuple(run.read(task.train)))]
    given += [_tuned_task(run, number, further) for number, further in enumerate(settings.icl.tasks)]
    tasks: list[TunedTask] = []
    deviations: tuple[Deviation, ...] = ()
    for each in given:
        kept, told = without_texts(each, evaluated)
        tasks.append(kept)
        deviations += told
    demonstrations = settings.demonstrations
    shown = Shown(demonstrations.count, demonstrations.balanced, demonstrations.seeds, votes=settings.icl.votes)
    return _dealt(run, tasks, shown), deviations


def _dealt(run: TaskRun, tasks: Sequence[TunedTask], shown: Shown) -> IclData:
    icl, seed = run.recipe.distill.icl, run.recipe.seed
    target, *others = tasks
    if icl.paradigm == "meta":
        return deal_meta(target, others, shown, seed=seed)
    return deal_multitask(
        target,
        others,
        shown,
        train_examples=icl.train_examples,
        dev_examples=icl.dev_examples,
        seed=seed,
    )


def _tuned_task(run: TaskRun, number: int, further: TuningTask) -> TunedTask:
    task = run.recipe.task
    encoder = PromptEncoder(
        load_tokenizer(run.student_folder),
        pattern=further.pattern or task.pattern,
        verbalizers=further.verbalizers or task.verbalizers,
        separator=task.separator if further.separator is None else further.separator,
    )
    examples = read_examples(further.train, labels=encoder.labels, base_folder=run.base_folder)
    return TunedTask(f"distill.icl.tasks[{number}], {further.train}", encoder, tuple(examples))
