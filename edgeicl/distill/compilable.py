"""Whether a recipe's student can be compiled as the recipe asks, from its config.json alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgeicl.errors import DataError
from edgeicl.models.anatomy import Anatomy
from edgeicl.models.architectures.table import ARCHITECTURES, anatomy_of
from edgeicl.models.model_folder import model_config
from edgeicl.specs.recipe import Recipe

_CARRYING = ("icl", "mend")
_CHANGE = (
    "change these settings, or name a student of an architecture that has a lowering: the README lists them"
)


def compilable(recipe: Recipe, student: Path) -> Anatomy:
    """The anatomy of the model in the folder `student`.

    Raises:
        DataError: an architecture, or a setting of it, that edgeicl can't compile; a recipe that asks for more
            than is known of an architecture that Optimum exports, all such settings named.
    """
    config, where = model_config(student), f"distill.student.model: {student}"
    wrong = list(_unknown_layers(recipe)) if config.get("model_type") not in [*ARCHITECTURES, None] else []
    told = f"edgeicl doesn't know the layers of a {config.get('model_type')} model: {'; '.join(wrong)}"
    try:
        anatomy = anatomy_of(config)
    except DataError as error:
        message, next_step = f"{where}: {error.args[0]}", error.next_step
        if wrong:
            message, next_step = f"{message}\nbeside that, {told}", f"{next_step}; {_CHANGE}"
        raise DataError(message, next_step=next_step) from error
    if wrong:
        raise DataError(f"{where}: {told}", next_step=_CHANGE)
    if recipe.emit.head == "verbalizers":
        anatomy.require_tied(str(student))
    return anatomy


def _unknown_layers(recipe: Recipe) -> Iterator[str]:
    """Settings that need more of a model than its linear layers."""
    distill, quantize = recipe.distill, recipe.quantize
    if quantize.importance != "sensitivity":
        yield f"quantize.importance: {quantize.importance} (expected sensitivity)"
    if quantize.solver == "gptq":
        yield "quantize.solver: gptq (expected rtn or hqq)"
    if quantize.recover is not None:
        yield "quantize.recover (expected null)"
    if recipe.emit.head != "full":
        yield f"emit.head: {recipe.emit.head} (expected full)"
    # there is no shared cache to put it into
    if distill.method in _CARRYING:
        yield f"distill.method: {distill.method}, which puts something before every query (expected another)"
    if distill.prefix != "none":
        yield f"distill.prefix: {distill.prefix} (expected none)"
    # both read several texts in one row, which not every model can keep apart
    if recipe.task.scoring == "channel":
        yield "task.scoring: channel (expected direct)"
    if distill.objective.on_policy:
        yield f"distill.objective.on_policy: {distill.objective.on_policy:g} (expected 0)"
