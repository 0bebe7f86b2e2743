"""The weights of a model folder, read one at a time: what lies in memory needs not be the whole model.

A file is opened anew for every weight: pages of a mapped file are the process's memory for as long as anything
of the mapping is in use.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from edgeicl.errors import DataError
from edgeicl.models.model_folder import weight_files

TIED_HEAD = "lm_head.weight"
"""A head that is the embedding; checkpoints may store it or leave it out."""
HELD_BYTES = 1_000_000_000
"""Weights of so many bytes in fp32 are held in memory; those of larger models are read when they are used."""


class Checkpoint:
    """Stored weights by the names that the model with its head has for them.

    Checkpoints of a base model leave out its `prefix` (OPT: `decoder.` for `model.decoder.`).

    Raises:
        DataError: files that can't be read.
    """

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder = folder
        self._prefix = prefix
        self._places: dict[str, tuple[Path, tuple[int, ...]]] = {}
        for path in weight_files(folder):
            with _opened(path) as file:
                for name in file.keys():  # noqa: SIM118 - a file handle, not a dict
                    self._places[name] = (path, tuple(file.get_slice(name).get_shape()))

    @property
    def is_held(self) -> bool:
        """Whether all of them may lie in memory at once."""
        return 4 * sum(prod(shape) for _, shape in self._places.values()) <= HELD_BYTES

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Of a stored weight; None for one that isn't there."""
        stored = self._stored(name)
        return None if stored is None else self._places[stored][1]

    def read(self, name: str) -> Tensor:
        """A weight in the type it is stored in, mapped from the file until it is dropped.

        Raises:
            DataError: there is none, or its file can't be read any more.
        """
        stored = self._stored(name)
        if stored is None:
            raise DataError(f"{self.folder}: found no weights for {name}; expected every weight of the model")
        with _opened(self._places[stored][0]) as file:
            weight: Tensor = file.get_tensor(stored)
            return weight

    def _stored(self, name: str) -> str | None:
        known = (name, name.removeprefix(self._prefix))
        return next((stored for stored in known if stored in self._places), None)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:  # not "numpy", which knows no bfloat16
            yield file
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} can't be read: {error}") from error
