"""What a build will give and has to do, before any work: nothing is trained, measured or written.

The build's own stages run on a store that only reads. Each checks its inputs as it always does and hands on
what is stored, up to the first output that isn't there; from there on, sizes are predicted from the shape of
the student that the recipe names. A model on the hub is fetched, and one in another form converted, as ever.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeicl.build_time import FIRST_STAGE_SECONDS, stage_seconds
from edgeicl.errors import BudgetError
from edgeicl.job import Job
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.model_folder import model_config
from edgeicl.pipeline import emitted, quantized, recovered
from edgeicl.specs.forecast import Forecast, StageAhead, StageState, TargetForecast
from edgeicl.specs.target import Target
from edgeicl.store import cache_root
from edgeicl.stored import NotStoredError, ReadOnlyStore

if TYPE_CHECKING:
    from edgeicl.distill.result import DistillResult
    from edgeicl.distill.task_run import TaskRun

log = logging.getLogger(__name__)


def forecast_job(job: Job, *, cache: Path | None = None) -> tuple[Forecast, list[BudgetError]]:
    """The forecast, and the error that the build would end with for each target where no plan fits.

    Raises:
        SpecError, DataError, GainError: as the build would, as far as it is known now.
    """
    from edgeicl.distill.passes_ahead import checked_tokens
    from edgeicl.distill.stage import distill
    from edgeicl.distill.task_run import TaskRun
    from edgeicl.tasks.label_words import with_label_words

    job = replace(job, recipe=with_label_words(job.recipe, job.base_folder))
    store = ReadOnlyStore(cache or cache_root())
    run = TaskRun(job.recipe, store, job.base_folder)
    distilled: DistillResult | None = None
    ahead: tuple[StageAhead, ...] = ()
    try:
        distilled = distill(job.recipe, store=store, base_folder=job.base_folder)
    except NotStoredError as missing:
        ahead = _recipe_layer(run, store.found, missing.stage)
    stages = [*(StageAhead(stage=name, state="in the store") for name in store.found), *ahead]
    student = _Student.known(distilled) if distilled is not None else _Student.expected(run)
    exported = anatomy_of(model_config(student.folder)).exported
    forecasts: list[TargetForecast] = []
    errors: list[BudgetError] = []
    for target in job.targets:
        found, refused = _for_target(job, target, student, store)
        ahead_of_target: tuple[StageAhead, ...] = ()
        if refused is None:
            seconds = stage_seconds(
                job.recipe, target, found, student=student.folder, checked_tokens=checked_tokens(run)
            )
            ahead_of_target = _stages(job, target, distilled, store, seconds, exported=exported)
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
    def expected(run: TaskRun) -> _Student:
        """What it starts from, which has the shape of what it will make."""
        from edgeicl.distill.expected_prefix import expected_prefix

        return _Student(run.student_folder, None, None, *expected_prefix(run))


def _recipe_layer(run: TaskRun, found: Sequence[str], missing: str) -> tuple[StageAhead, ...]:
    """The stages from the one that is `missing` on; those after it by name where they are known."""
    from edgeicl.distill.passes_ahead import passes_ahead
    from edgeicl.models.pass_time import pass_seconds

    logging.disable(logging.WARNING)  # what there is to say of the data, the stages have said
    try:
        known = (passes_ahead(run) or [])[len(found) :]
    finally:
        logging.disable(logging.NOTSET)
    if not known:
        rest = StageAhead(stage="rest of the recipe layer", state="after that")
        return (StageAhead(stage=missing, state="to be built"), rest)
    return tuple(
        StageAhead(
            stage=name,
            state="after that" if number else "to be built",
            seconds=sum(map(pass_seconds, passes)) + (0.0 if number else FIRST_STAGE_SECONDS),
        )
        for number, (name, passes) in enumerate(known)
    )


def _for_target(
    job: Job, target: Target, student: _Student, store: ReadOnlyStore
) -> tuple[TargetForecast, BudgetError | None]:
    from edgeicl.emit.provider import provider_deviations
    from edgeicl.quantize.forecast import forecast

    if target.calibration is not None and target.calibration.disturbed:
        log.warning(
            "target %s was measured on a busy computer, whose medians were %.2g times its least times: "
            "predicted times may be off by as much; probe again when it is idle",
            target.name,
            target.calibration.disturbance,
        )
    found, refused = forecast(
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
    deviations = (*found.deviations, *provider_deviations(target))
    return found.model_copy(update={"deviations": deviations}), refused


def _stages(
    job: Job,
    target: Target,
    distilled: DistillResult | None,
    store: ReadOnlyStore,
    seconds: Mapping[str, float],
    *,
    exported: bool,
) -> tuple[StageAhead, ...]:
    """The stages of one target. A benchmark is never taken from the store, and a report is written anew."""
    from edgeicl.quantize.cache import CACHE_SCALES

    recovers = ["recover"] * (job.recipe.quantize.recover is not None)
    names = ["importance", "quantize", *recovers, *["export"] * exported, "emit"]
    stored = 0
    if distilled is not None:
        try:
            plan = recovered(job, target, distilled, quantized(job, target, distilled, store), store)
            emitted(job, target, distilled, plan, store)
            stored = len(names)
        except NotStoredError as missing:
            # scales of the cache are measured on the way to a plan
            stored = names.index("quantize" if missing.stage == CACHE_SCALES else missing.stage)
    ahead: list[StageAhead] = []
    for number, name in enumerate(names):
        follows: StageState = "to be built" if distilled is not None and number == stored else "after that"
        ahead.append(
            StageAhead(stage=name, state="in the store")
            if number < stored
            else StageAhead(stage=name, state=follows, seconds=seconds.get(name))
        )
    every_time = ("benchmark", "report")
    return (*ahead, *(StageAhead(stage=n, state="every time", seconds=seconds[n]) for n in every_time))
