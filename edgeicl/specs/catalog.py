"""The recipes and targets that come with edgeicl, by name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from edgeicl.errors import Problem, SpecError
from edgeicl.specs.document import read_document
from edgeicl.specs.loading import load_spec
from edgeicl.specs.nearest import one_of
from edgeicl.specs.pretraining import Pretraining
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.target import Target
from edgeicl.specs.text_pretraining import TextPretraining

_PACKAGE = Path(__file__).parents[1]


def shipped(folder: str) -> dict[str, Path]:
    """Name -> file of what is shipped in `recipes`, `recipes/pretrain` or `targets`, in the order of names."""
    # In an installed wheel they lie in the package, in an editable install beside it.
    places = (_PACKAGE / folder, _PACKAGE.parent / folder)
    place = next((place for place in places if place.is_dir()), places[0])
    return {path.stem: path for path in sorted(place.glob("*.yaml"))}


def find_recipe(given: str) -> Path:
    """The recipe file `given` as a path, or as the name of a shipped one.

    Raises:
        SpecError: there is none, or it is one of pretraining.
    """
    for_pretraining = not Path(given).is_file() and given in shipped("recipes/pretrain")
    path = None if for_pretraining else _find(given, "recipe", folder="recipes")
    if path is None or _PRETRAINING_KEY in _keys(path):
        problem = Problem(
            _PRETRAINING_KEY, "a pretraining recipe", "expected a recipe that distills and compiles"
        )
        raise SpecError(given, [problem], next_step=f"train its model: edgeicl pretrain {given} -o FOLDER")
    return path


_PRETRAINING_KEY = "phases"
"""Every pretraining recipe has it, and no other."""


def _keys(path: Path) -> Collection[str]:
    try:
        values = read_document(path, kind="recipe").values
    except SpecError:  # told where it is read for good
        return ()
    return values if isinstance(values, dict) else ()


def find_pretraining(given: str) -> Path:
    """The pretraining recipe `given` as a path, or as the name of a shipped one."""
    return _find(given, "pretraining recipe", folder="recipes/pretrain")


def load_pretraining(
    path: Path, overrides: Sequence[str] = (), *, with_data: bool = False
) -> Pretraining | TextPretraining:
    """The pretraining recipe in the file `path`, of its own kind, after `overrides`; see `load_spec`."""
    if read_document(path, kind="pretraining recipe").values.get("kind") == "text":
        return load_spec(path, TextPretraining, overrides=overrides, with_data=with_data)
    return load_spec(path, Pretraining, overrides=overrides)


def load_recipe(given: str, overrides: Sequence[str] = (), *, with_data: bool = False) -> Recipe:
    """The recipe `given` as a path or a shipped name, after `overrides`; `with_data` as in `load_spec`."""
    return load_spec(find_recipe(given), Recipe, overrides=overrides, with_data=with_data)


def find_target(given: str) -> Path:
    """The target file `given` as a path, or as the name of a shipped one."""
    return _find(given, "target", folder="targets")


def load_target(given: str, overrides: Sequence[str] = ()) -> Target:
    """The target `given` as a path or a shipped name, after `overrides`."""
    return load_spec(find_target(given), Target, overrides=overrides)


def _find(given: str, kind: str, *, folder: str) -> Path:
    path = Path(given)
    if path.is_file():
        return path
    known = shipped(folder)
    if given in known:
        return known[given]
    expected = f"expected a {kind} file or a shipped {kind}; {one_of(path.stem, known)}"
    problem = Problem(kind, f"there is no {given!r}", expected)
    raise SpecError(given, [problem], next_step=f"check the path or the name of the {kind}")
