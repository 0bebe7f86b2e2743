"""How long the stages of a build will take on this computer, from passes and roundings timed here and now.

A first figure, not a promise: whatever isn't a pass through a model or the rounding of weights counts for
`_START_SECONDS` a stage. docs/results/build-time.md says how near it came.
"""

from __future__ import annotations

from pathlib import Path

from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.model_folder import model_config
from edgeicl.models.pass_time import Passes, pass_seconds
from edgeicl.pipeline import BENCH_REPETITIONS, BENCH_WARMUP_REPETITIONS, bench_tokens
from edgeicl.quantize.rounding_time import rounding_seconds
from edgeicl.specs.forecast import TargetForecast
from edgeicl.specs.recipe import Quantize, Recipe
from edgeicl.specs.target import Target

_START_SECONDS = {
    "importance": 0.2,
    "quantize": 0.5,
    "recover": 0.5,
    "emit": 3.0,
    "benchmark": 1.5,
    "report": 1.0,
}
FIRST_STAGE_SECONDS = 3.0
"""Of libraries that the first stage of a build loads."""
_LAYERS_AFTER = 0.5  # of all, on average over groups: a group's loss is measured from its layer on


def stage_seconds(
    recipe: Recipe, target: Target, found: TargetForecast, *, student: Path, checked_tokens: float
) -> dict[str, float]:
    """Stage of the compile layer -> seconds, were none of it in the store but what `found` says is measured.

    Args:
        student: Its folder, or that of the model it is made from.
        checked_tokens: Of all the prompts that artifact and student are compared at.
    """
    settings, groups = recipe.quantize, anatomy_of(model_config(student)).groups
    shapes = [group.shape for group in groups]
    calibration = pass_seconds(Passes(student, found.calibration_tokens))
    rounding = rounding_seconds(shapes, target.formats, solver=settings.solver)  # each group in each format
    one_format = rounding / len(target.formats)
    rounded, passes = found.to_measure / len(groups), float(found.to_measure > 0)
    if settings.importance == "sensitivity":
        passes = found.to_measure * _LAYERS_AFTER
        if settings.measured_formats == "one_per_width" and found.to_measure:
            rounded, passes = float(len(target.formats)), passes + 1  # what each format changes
    # The curve measures a plan for each uniform format, the chosen one and two by other rules.
    plans = len(found.uniform) + 3
    refined = settings.refine * len(groups) * calibration
    prompt, decoded = bench_tokens(target)
    once = pass_seconds(Passes(student, prompt)) + pass_seconds(Passes(student, decoded, one_by_one=True))
    work = {
        "importance": rounded * one_format + passes * calibration,
        "quantize": plans * (calibration + one_format) + refined,
        "emit": 2 * pass_seconds(Passes(student, checked_tokens)),
        "benchmark": (BENCH_REPETITIONS + BENCH_WARMUP_REPETITIONS) * once,
        "report": 0.0,
        "recover": _recovery_seconds(settings, found, student),
    }
    return {stage: seconds + _START_SECONDS[stage] for stage, seconds in work.items()}


def _recovery_seconds(settings: Quantize, found: TargetForecast, student: Path) -> float:
    """Of steps in which the rounded student learns and the exact one reads the same; without the judging."""
    recover = settings.recover
    if recover is None:
        return 0.0
    reads_text = settings.calibration_text is not None
    sequences = settings.calibration_examples + reads_text * settings.calibration_text_blocks
    kinds = 1 + reads_text + (recover.own_texts > 0)  # a batch of each
    tokens = recover.steps * recover.batch_size * kinds * found.calibration_tokens / sequences
    return pass_seconds(Passes(student, tokens, trains=True)) + pass_seconds(Passes(student, tokens))
