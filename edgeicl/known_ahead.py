"""What is known of a build before anything is trained: that no plan fits, or what won't be as asked."""

from __future__ import annotations

import logging

from edgeicl.distill.compilable import compilable
from edgeicl.job import Job
from edgeicl.models.model_folder import model_folder
from edgeicl.quantize.stage_inputs import given_plan, require_fit, sized
from edgeicl.specs.manifest import Deviation


def known_deviations(job: Job) -> tuple[Deviation, ...]:
    """Of all targets, as far as the shape of the recipe's student tells.

    What stands before queries has a length that is known later: here it has none, so nothing is refused that
    may fit.

    Raises:
        SpecError, DataError: a plan file, a target or a student that don't go together.
        BudgetError: no plan fits a target, or the given one doesn't.
    """
    recipe, base_folder = job.recipe, job.base_folder
    found: list[Deviation] = []
    logging.disable(logging.WARNING)  # the stages say it when they come to it
    try:
        student = model_folder(recipe.distill.student.model, base_folder=base_folder)
        compilable(recipe, student)
        for target in job.targets:
            spaces, deviations = sized(recipe, target, student=student, prefix_tokens=(), prefix_ids=False)
            given = given_plan(
                recipe, target, spaces, student=student, student_digest=None, base_folder=base_folder
            )
            require_fit(recipe, spaces, given)
            found += deviations
    finally:
        logging.disable(logging.NOTSET)
    return tuple(found)
