"""The recipes and targets that come with edgeicl, by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeicl.errors import Problem, SpecError
from edgeicl.specs.loading import load_spec
from edgeicl.specs.nearest import one_of
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.target import Target

_PACKAGE = Path(__file__).parents[1]


def shipped(kind: str) -> dict[str, Path]:
    """Name -> file of the shipped `recipes` or `targets`, in the order of their names."""
    # In an installed wheel they lie in the package, in an editable install beside it.
    folders = (_PACKAGE / kind, _PACKAGE.parent / kind)
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find_recipe(given: str) -> Path:
    """The recipe file `given` as a path, or as the name of a shipped one."""
    return _find(given, "recipe")


def load_recipe(given: str, overrides: Sequence[str] = (), *, with_data: bool = False) -> Recipe:
    """The recipe `given` as a path or a shipped name, after `overrides`; `with_data` as in `load_spec`."""
    return load_spec(find_recipe(given), Recipe, overrides=overrides, with_data=with_data)


def load_target(given: str, overrides: Sequence[str] = ()) -> Target:
    """The target `given` as a path or a shipped name, after `overrides`."""
    return load_spec(_find(given, "target"), Target, overrides=overrides)


def _find(given: str, kind: str) -> Path:
    path = Path(given)
    if path.is_file():
        return path
    known = shipped(f"{kind}s")
    if given in known:
        return known[given]
    expected = f"expected a {kind} file or a shipped {kind}; {one_of(path.stem, known)}"
    problem = Problem(kind, f"there is no {given!r}", expected)
    raise SpecError(given, [problem], next_step=f"check the path or the name of the {kind}")
