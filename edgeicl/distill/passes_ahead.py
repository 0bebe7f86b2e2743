"""What the stages of a recipe will send through its models, in the order in which they run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgeicl.distill.context_task import ContextTask
from edgeicl.distill.task_run import TaskRun
from edgeicl.distill.teacher_targets import GAIN_EXAMPLES
from edgeicl.models.pass_time import Passes

StagePasses = tuple[str, tuple[Passes, ...]]


def passes_ahead(run: TaskRun) -> list[StagePasses] | None:
    """Stage -> passes; None for methods whose stages aren't counted, and options beside the targets.

    Padding, answers of several tokens, and loading are left out.
    """
    settings = run.recipe.distill
    evaluated = _tokens(run.predictor.queries)
    if settings.method == "none" and settings.prefix == "none":
        return [("student", ()), ("evaluation", (Passes(run.student_folder, evaluated),))]
    objective = settings.objective
    if settings.method != "context" or objective.lm or objective.on_policy:
        return None
    return _context(run, evaluated)


def _context(run: TaskRun, evaluated: int) -> list[StagePasses]:
    task, settings = ContextTask(run), run.recipe.distill
    student, scored = run.student_folder, task.queries
    contexts = task.contexts.values()

    def by_teacher(tokens: int) -> Passes:
        return Passes(run.teacher_folder, tokens, load_in=run.teacher.load_in)

    gain, shown = _tokens(scored[:GAIN_EXAMPLES]), _tokens(contexts)
    # The gain's answers behind demonstrations are the first of the targets.
    rest = len(contexts) * (_tokens(scored) - gain)
    transfer = settings.training.epochs * _tokens(scored[: len(task.data.transfer)])
    students = [("student", (Passes(student, transfer, trains=True),)) for _ in task.sets]
    # Beside the distilled students: one tuned on each one's demonstrations, and both models without and with.
    untrained = evaluated * (1 + len(contexts)) + shown
    baselines = (
        Passes(student, settings.baseline_epochs * shown, trains=True),
        Passes(student, evaluated * len(task.sets)),
        Passes(student, untrained),
        by_teacher(untrained),
    )
    return [
        ("teacher-gain", (by_teacher(gain * (1 + len(contexts)) + shown),)),
        ("teacher-targets", (by_teacher(rest + shown if rest else 0),)),
        *students,
        ("baselines", baselines),
        ("evaluation", (Passes(student, evaluated * len(task.sets)),)),
    ]


def _tokens(rows: Iterable[Sequence[int]]) -> int:
    return sum(map(len, rows))


def checked_tokens(run: TaskRun) -> float:
    """Of all the prompts that student and artifact will be compared at, from the mean of all there are."""
    most = run.recipe.limits.accuracy_examples
    examples = sum(min(most, len(found)) for found in run.evaluation.values())
    return examples * _tokens(run.predictor.queries) / len(run.predictor.queries)
