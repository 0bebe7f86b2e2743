"""How a recipe names a model: `builtin:NAME`, a local folder, or a name on the hub."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

from edgeicl.specs import builtin_names
from edgeicl.specs.local_path import local_path


def is_local(name: str) -> bool:
    """Whether `name` can only be a folder: a hub's names have one slash and start with a letter or digit."""
    return name.startswith((".", "/", "~")) or name.count("/") > 1


def _there(name: str, info: ValidationInfo) -> str:
    """Folders are looked for only where the context says in which folder paths start."""
    if name.startswith("builtin:"):
        builtin_names.check_model(name.removeprefix("builtin:"))
    elif is_local(name) and info.context is not None:
        folder = local_path(name, info.context["base_folder"])
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"no model in {folder}; expected a folder with config.json, looked for from the recipe's folder"
            )
    return name


ModelName = Annotated[str, AfterValidator(_there)]
