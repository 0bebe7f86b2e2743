"""What one `edgeicl compile` is to do, with all that can be checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgeicl.artifact import MANIFEST
from edgeicl.errors import Problem, SpecError
from edgeicl.replacement import replaceable
from edgeicl.specs.catalog import find_recipe, load_recipe, load_target, shipped
from edgeicl.specs.loading import load_spec
from edgeicl.specs.nearest import one_of
from edgeicl.specs.quant_plan import QuantPlan
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.target import Target


@dataclass(frozen=True)
class Job:
    """A recipe and the targets it is compiled for, all checked; where each artifact goes."""

    recipe: Recipe
    recipe_path: Path
    targets: tuple[Target, ...]
    folders: tuple[Path, ...]

    @property
    def base_folder(self) -> Path:
        """Where the recipe's relative paths start."""
        return self.recipe_path.parent


def resolve(
    recipe: str,
    *,
    targets: Sequence[str] = (),
    output: Path | None = None,
    recipe_overrides: Sequence[str] = (),
    target_overrides: Sequence[str] = (),
    builds: bool = True,
) -> Job:
    """Everything that can be checked before any work: recipe, targets, plan file, output folders.

    Args:
        builds: Whether the output folders will be written, and so are checked too.

    Raises:
        SpecError: a file or override that can't be used, no target, or a target named twice.
        DataError: an output folder that holds something else or can't be written.
    """
    path = find_recipe(recipe)
    wanted = load_recipe(recipe, recipe_overrides)
    names = tuple(targets) or wanted.targets
    if not names:
        problem = Problem("targets", "none", f"expected a target; {one_of('', shipped('targets'))}", line=1)
        raise SpecError(str(path), [problem], next_step="name one in the recipe, or with --target")
    loaded = tuple(load_target(name, target_overrides) for name in names)
    repeated = sorted({target.name for target in loaded if [t.name for t in loaded].count(target.name) > 1})
    if repeated:
        problem = Problem("targets", f"{', '.join(repeated)} twice", "expected each target once", line=1)
        raise SpecError(str(path), [problem], next_step="name each target once")
    if wanted.quantize.plan is not None:
        load_spec(path.parent / wanted.quantize.plan, QuantPlan)
    base = output or Path("build") / wanted.name
    alone = output is not None and len(loaded) == 1
    folders = tuple(base if alone else base / target.name for target in loaded)
    if builds:
        for folder in folders:
            replaceable(folder, MANIFEST)
    return Job(wanted, path, loaded, folders)
