"""Whether a recipe's student can be compiled as the recipe asks, from its config.json alone."""

from __future__ import annotations

from pathlib import Path

from edgeicl.models.anatomy import Anatomy
from edgeicl.models.architectures.exported import require_settings
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.model_folder import model_config
from edgeicl.specs.recipe import Recipe

_CARRY = {"icl": "demonstrations (distill.method: icl)", "mend": "vectors (distill.method: mend)"}


def compilable(recipe: Recipe, student: Path) -> Anatomy:
    """The anatomy of the model in the folder `student`.

    Raises:
        DataError: an architecture, or a setting of it, that edgeicl can't compile; a recipe that asks for more
            than is known of an architecture that Optimum exports.
    """
    anatomy = anatomy_of(model_config(student))
    carried = "demonstrations (distill.prefix)" if recipe.distill.prefix == "demonstrations" else None
    require_settings(
        anatomy,
        importance=recipe.quantize.importance,
        solver=recipe.quantize.solver,
        head=recipe.emit.head,
        before_query=carried or _CARRY.get(recipe.distill.method),
    )
    if recipe.emit.head == "verbalizers":
        anatomy.require_tied(str(student))
    return anatomy
