"""Where a file or folder lies that a recipe names."""

from __future__ import annotations

from pathlib import Path


def local_path(name: str, base_folder: Path) -> Path:
    """`name` as it is where it is absolute, below the user's home (`~`), else below `base_folder`."""
    try:
        return base_folder / Path(name).expanduser()
    except RuntimeError:  # `~nobody`: no home, so it is a name like any other, and won't be found
        return base_folder / name
