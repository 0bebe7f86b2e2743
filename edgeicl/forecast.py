"""What a build will give and has to do, before any work: nothing is trained, measured or written.

The build's own stages run on a store that only reads. Each checks its inputs as it always does and hands on
what is stored, up to the first output that isn't there; from there on, sizes are predicted from the shape of
the student that the recipe names. A model on the hub is fetched, and one in another form converted, as ever.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeicl.errors import BudgetError
from edgeicl.job import Job
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.model_folder import model_config
from edgeicl.pipeline import emitted, quantized
from edgeicl.specs.forecast import Forecast, StageAhead, StageState, TargetForecast
from edgeicl.specs.target import Target
from edgeicl.store import cache_root
from edgeicl.stored import NotStoredError, ReadOnlyStore

if TYPE_CHECKING:
    from edgeicl.distill.result import DistillResult


def forecast_job(job: Job, *, cache: Path | None = None) -> tuple[Forecast, list[BudgetError]]:
    """The forecast, and the error that the build would end with for each target where no plan fits.

    Raises:
        SpecError, DataError, GainError: as the build would, as far as it is known now.
    """
    from edgeicl.distill.stage import distill
    from edgeicl.tasks.label_words import with_label_words

    job = replace(job, recipe=with_label_words(job.recipe, job.base_folder))
    store = ReadOnlyStore(cache or cache_root())
    distilled, ahead = None, []
    try:
        distilled = distill(job.recipe, store=store, base_folder=job.base_folder)
    except NotStoredError as missing:
        ahead = [
            StageAhead(stage=missing.stage, state="to be built"),
            StageAhead(stage="rest of the recipe layer", state="after that"),
        ]
    stages = [*(StageAhead(stage=name, state="in the store") for name in store.found), *ahead]
    student = _Student.known(distilled) if distilled is not None else _Student.expected(job, store)
    exported = anatomy_of(model_config(student.folder)).exported
    forecasts: list[TargetForecast] = []
    errors: list[BudgetError] = []
    for target in job.targets:
        found, refused = _for_target(job, target, student, store)
        ahead_of_target = () if refused is not None else _stages(job, target, distilled, store, exported)
        forecasts.append(found.model_copy(update={"stages": ahead_of_target}))
        errors += [refused] if refused is not None else []
    whole = Forecast(
        recipe=job.recipe.name,
        stages=tuple(stages),
        targets=tuple(forecasts),
        deviations=distilled.deviations if distilled is not None else (),
    )
    return whole, errors


@dataclass(frozen=True)
class _Student:
    """What will be compiled, as far as it is known; the arguments of `quantize.forecast`."""

    folder: Path
    digest: str | None
    prefix: Path | None
    prefix_tokens: tuple[int, ...]
    prefix_ids: bool

    @staticmethod
    def known(distilled: DistillResult) -> _Student:
        """What the recipe layer has made."""
        from edgeicl.specs.prefix import read_prefix_source

        prefix = distilled.prefix
        sets = read_prefix_source(prefix) if prefix is not None else []
        ids = any(values.ndim == 1 for values in sets)
        return _Student(distilled.student, distilled.digest, prefix, tuple(map(len, sets)), ids)

    @staticmethod
    def expected(job: Job, store: ReadOnlyStore) -> _Student:
        """What it starts from, which has the shape of what it will make."""
        from edgeicl.distill.expected_prefix import expected_prefix
        from edgeicl.distill.task_run import TaskRun

        run = TaskRun(job.recipe, store, job.base_folder)
        return _Student(run.student_folder, None, None, *expected_prefix(run))


def _for_target(
    job: Job, target: Target, student: _Student, store: ReadOnlyStore
) -> tuple[TargetForecast, BudgetError | None]:
    from edgeicl.quantize.forecast import forecast

    return forecast(
        job.recipe,
        target,
        student=student.folder,
        student_digest=student.digest,
        prefix=student.prefix,
        prefix_tokens=student.prefix_tokens,
        prefix_ids=student.prefix_ids,
        store=store,
        base_folder=job.base_folder,
    )


def _stages(
    job: Job, target: Target, distilled: DistillResult | None, store: ReadOnlyStore, exported: bool
) -> tuple[StageAhead, ...]:
    """The stages of one target. A benchmark is never taken from the store, and a report is written anew."""
    names = ["importance", "quantize", "emit"]
    if exported:
        names.insert(2, "export")
    stored = 0
    if distilled is not None:
        try:
            emitted(job, target, distilled, quantized(job, target, distilled, store), store)
            stored = len(names)
        except NotStoredError as missing:
            stored = names.index(missing.stage)
    ahead: list[StageAhead] = []
    for number, name in enumerate(names):
        follows: StageState = "to be built" if distilled is not None and number == stored else "after that"
        ahead.append(StageAhead(stage=name, state="in the store" if number < stored else follows))
    return (*ahead, *(StageAhead(stage=name, state="every time") for name in ("benchmark", "report")))
