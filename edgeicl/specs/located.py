"""A recipe whose paths hold wherever it is read from: what is written beside an artifact can be compiled."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from edgeicl.specs.local_path import local_path
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.source import SEED
from edgeicl.specs.spec import Spec

_MAY_BE_PATHS = ("model", "plan", "targets")
"""Keys whose values are paths or names; of a `source` it is what follows the colon."""

SpecType = TypeVar("SpecType", bound=Spec)


def located(recipe: Recipe, base_folder: Path) -> Recipe:
    """`recipe` with every local path made absolute; names on a hub and of built-in things stay names."""
    return _located(recipe, base_folder.resolve())


def _located(spec: SpecType, base_folder: Path) -> SpecType:
    return spec.model_copy(update={key: _value(key, value, base_folder) for key, value in spec})


def _value(key: str, value: Any, base_folder: Path) -> Any:
    if isinstance(value, Spec):
        return _located(value, base_folder)
    if isinstance(value, tuple):
        return tuple(_value(key, entry, base_folder) for entry in value)
    if isinstance(value, dict):
        return {name: _value(key, entry, base_folder) for name, entry in value.items()}
    if isinstance(value, str) and key == "source":
        kind, _, name = value.partition(":")
        return f"{kind}:{_path_or_name(name, base_folder)}" if kind in ("file", "hub") else value
    return _path_or_name(value, base_folder) if isinstance(value, str) and key in _MAY_BE_PATHS else value


def _path_or_name(name: str, base_folder: Path) -> str:
    path = local_path(name, base_folder)
    return str(path.resolve()) if path.exists() or SEED in name else name
