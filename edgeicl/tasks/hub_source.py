"""`hub:` rows through the datasets library: a name on the hub, or a local folder in the hub's format.

A name that starts with `.`, `/` or `~`, or that is a folder below the recipe's, is local and never leaves
this machine. `hub:OWNER/NAME/CONFIG` picks a configuration. Numbers of class labels become their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeicl.errors import DataError
from edgeicl.specs.local_path import local_path
from edgeicl.specs.nearest import one_of

if TYPE_CHECKING:
    from datasets import Dataset

Row = tuple[str, Mapping[str, Any]]


def hub_rows(name: str, *, split: str, label: str, base_folder: Path) -> Iterator[Row]:
    """Rows of one split, in order; `label` is translated where it is a class label."""
    from datasets import ClassLabel

    data = _local(name, split, base_folder) if _is_local(name, base_folder) else _remote(name, split)
    feature = data.features.get(label)
    for number, row in enumerate(data):
        if isinstance(feature, ClassLabel) and isinstance(row[label], int) and row[label] >= 0:
            row = {**row, label: feature.int2str(row[label])}
        yield f"hub:{name} {split} row {number + 1}", row


def _is_local(name: str, base_folder: Path) -> bool:
    return name.startswith((".", "/", "~")) or (base_folder / name).is_dir()


def _local(name: str, split: str, base_folder: Path) -> Dataset:
    from datasets import DatasetDict, get_dataset_split_names, load_dataset, load_from_disk

    folder = local_path(name, base_folder)
    if not folder.is_dir():
        raise DataError(
            f"hub:{name}: found no folder {folder}", next_step="check `source:`; it starts at the recipe"
        )
    try:
        if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
            saved = load_from_disk(str(folder))
            splits = list(saved) if isinstance(saved, DatasetDict) else [str(saved.split or "train")]
            _check_split(name, split, splits)
            return saved[split] if isinstance(saved, DatasetDict) else saved
        _check_split(name, split, get_dataset_split_names(str(folder)))
        return load_dataset(str(folder), split=split)
    except DataError:
        raise
    except Exception as error:  # the library's own errors are of many unrelated kinds
        raise DataError(f"hub:{name}: {folder} can't be read as a data set: {_first_line(error)}") from error


def _remote(name: str, split: str) -> Dataset:
    from datasets import load_dataset

    parts = name.split("/")
    path, config = ("/".join(parts[:2]), parts[2]) if len(parts) == 3 else (name, None)
    try:
        return load_dataset(path, config, split=split)
    except Exception as error:  # as above; all of them end in the same advice
        raise DataError(
            f"hub:{name} split '{split}' can't be loaded: {_first_line(error)}",
            next_step="check name and network, or download the data and give `hub:./FOLDER` or `file:PATH`",
        ) from error


def _check_split(name: str, split: str, splits: list[str]) -> None:
    if split not in splits:
        raise DataError(f"hub:{name}: found no split '{split}'; {one_of(split, splits)}")


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
