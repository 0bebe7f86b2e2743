"""What one `edgeicl compile` is to do, with all that can be checked before any work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from edgeicl.errors import DataError, Problem, SpecError
from edgeicl.replacement import replaceable
from edgeicl.specs.catalog import find_recipe, find_target, load_recipe, shipped
from edgeicl.specs.document import read_document
from edgeicl.specs.loading import load_spec
from edgeicl.specs.local_path import local_path
from edgeicl.specs.manifest import MANIFEST
from edgeicl.specs.nearest import one_of
from edgeicl.specs.overrides import apply_overrides
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
        SpecError: what can't be used, of all files and overrides: an entry, a data file that isn't there, no
            target, or a target named twice.
        DataError: an output folder that holds something else or can't be written, or a student in a local
            folder that can't be compiled.
    """
    errors: list[SpecError] = []
    path, wanted = Path(recipe), None
    with _collected(errors):
        path = find_recipe(recipe)
        wanted = load_recipe(recipe, recipe_overrides, with_data=True)
    written, line = _written_targets(path)
    names = tuple(targets) or (written if wanted is None else wanted.targets)
    if wanted is not None and not names:
        problem = Problem("targets", "none", f"expected a target; {one_of('', shipped('targets'))}", line=1)
        errors.append(SpecError(str(path), [problem], next_step="name one in the recipe, or with --target"))
    loaded: list[Target] = []
    for name in names:
        beside = local_path(name, path.parent)  # paths in a recipe start at its folder
        given = str(beside) if not targets and beside.is_file() else name
        try:
            file = find_target(given)
        except SpecError as error:
            placed = [replace(problem, key="targets", line=line) for problem in error.problems]
            of_recipe = not targets and name in written
            errors.append(SpecError(str(path), placed, next_step=error.next_step) if of_recipe else error)
            continue
        with _collected(errors):
            loaded.append(load_spec(file, Target, overrides=target_overrides))
    for target in loaded:
        if wanted is not None and wanted.emit.head == "verbalizers" and target.budget.decode_ms is not None:
            found = f"verbalizers, and budget.decode_ms of target {target.name} is {target.budget.decode_ms:g}"
            problem = Problem(
                "emit.head", found, "expected full, as nothing is decoded without; or decode_ms: null"
            )
            errors.append(SpecError(str(path), [problem], next_step="change one of both"))
    repeated = sorted({target.name for target in loaded if [t.name for t in loaded].count(target.name) > 1})
    if repeated:
        problem = Problem("targets", f"{', '.join(repeated)} twice", "expected each target once", line=1)
        errors.append(SpecError(str(path), [problem], next_step="name each target once"))
    if wanted is not None and wanted.quantize.plan is not None:
        with _collected(errors):
            load_spec(local_path(wanted.quantize.plan, path.parent), QuantPlan)
    if wanted is None or errors:
        first, *others = errors
        raise SpecError(first.source, first.problems, next_step=first.next_step, others=others)
    _check_student(wanted, loaded, path, recipe_overrides)
    base = output or Path("build") / wanted.name
    alone = output is not None and len(loaded) == 1
    folders = tuple(base if alone else base / target.name for target in loaded)
    if builds:
        for folder in folders:
            replaceable(folder, MANIFEST)
    return Job(wanted, path, tuple(loaded), folders)


def _check_student(recipe: Recipe, targets: Sequence[Target], path: Path, overrides: Sequence[str]) -> None:
    """DataError for a student in a local folder that can't be compiled; none is fetched from the hub for it."""
    from edgeicl.distill.compilable import compilable
    from edgeicl.quantize.stage_inputs import able_target

    folder = local_path(recipe.distill.student.model, path.parent)
    if not (folder / "config.json").is_file():
        return
    try:
        compilable(recipe, folder)
        for target in targets:
            able_target(target, folder)
    except DataError as error:
        document = read_document(path, kind="recipe")
        apply_overrides(document, overrides)
        line = document.line_of(("distill", "student", "model"))
        place = "command line" if line is None else f"line {line}"
        raise DataError(f"{path}, {place}: {error.args[0]}", next_step=error.next_step) from error


def _written_targets(recipe: Path) -> tuple[tuple[str, ...], int | None]:
    """The targets that a recipe file names, whatever else is wrong with it, and their line."""
    try:
        document = read_document(recipe, kind="recipe")
        named = document.values.get("targets")
    except (SpecError, AttributeError):
        return (), None
    names = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    return tuple(names), document.line_of(("targets",))


@contextmanager
def _collected(errors: list[SpecError]) -> Iterator[None]:
    try:
        yield
    except SpecError as error:
        errors.append(error)
