"""The weights file beside the graph: written here rather than by a library, so that its bytes are ours.

Tensors lie without padding, those with the widest items first, so that every one is aligned to its own item
size anyway. The same tensors in the same order give the same bytes. Two initializers may name the same bytes
with different shapes: `alias` is how the tied embedding is stored once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import StringStringEntryProto, TensorProto

from edgeicl.errors import IntegrityError
from edgeicl.specs.manifest import LedgerEntry

Array = npt.NDArray[Any]
_ELEMENT_TYPES = {
    np.dtype(np.float32): TensorProto.FLOAT,
    np.dtype(np.float16): TensorProto.FLOAT16,
    np.dtype(np.uint8): TensorProto.UINT8,
    np.dtype(np.int8): TensorProto.INT8,
}


@dataclass(frozen=True)
class _Stored:
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    make: Callable[[], Array]
    group: str | None

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class DataFile:
    """Collects tensors, each with a function that makes its values, and writes them one at a time."""

    def __init__(self, file_name: str) -> None:
        self.file_name = file_name
        self._stored: dict[str, _Stored] = {}
        self._aliases: dict[str, tuple[str, tuple[int, ...]]] = {}

    def add(
        self,
        name: str,
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
        make: Callable[[], Array],
        *,
        group: str | None = None,
    ) -> str:
        """A tensor of its own. `make` is called once, when the file is written."""
        if name in self._stored or name in self._aliases:
            raise IntegrityError(f"tensor {name} is stored twice in {self.file_name}")
        self._stored[name] = _Stored(name, shape, np.dtype(dtype), make, group)
        return name

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name."""
        return name in self._stored

    def alias(self, name: str, of: str, shape: tuple[int, ...]) -> str:
        """Another name and shape for the bytes of the tensor `of`."""
        target = self._stored[of]
        if math.prod(shape) != math.prod(target.shape):
            raise IntegrityError(f"{name} {list(shape)} doesn't cover the bytes of {of} {list(target.shape)}")
        self._aliases[name] = (of, shape)
        return name

    def write(self, folder: Path) -> tuple[list[TensorProto], list[LedgerEntry]]:
        """Writes the file; the initializers that point into it, and one ledger row per stored tensor.

        Raises:
            IntegrityError: a tensor's values have another shape or type than announced.
        """
        path = folder / self.file_name
        path.unlink(missing_ok=True)
        initializers: list[TensorProto] = []
        ledger: list[LedgerEntry] = []
        offsets: dict[str, int] = {}
        offset = 0
        with path.open("wb") as stream:
            for entry in sorted(self._stored.values(), key=lambda stored: -stored.dtype.itemsize):
                values = entry.make()
                if values.shape != entry.shape or values.dtype != entry.dtype:
                    raise IntegrityError(
                        f"tensor {entry.name} is {values.dtype} {list(values.shape)}; "
                        f"expected {entry.dtype} {list(entry.shape)}"
                    )
                stream.write(np.ascontiguousarray(values).data)
                offsets[entry.name] = offset
                initializers.append(self._initializer(entry.name, entry, entry.shape, offset))
                ledger.append(
                    LedgerEntry(name=entry.name, file=self.file_name, bytes=entry.bytes, group=entry.group)
                )
                offset += entry.bytes
        for name, (of, shape) in self._aliases.items():
            initializers.append(self._initializer(name, self._stored[of], shape, offsets[of]))
        return initializers, ledger

    def _initializer(self, name: str, stored: _Stored, shape: tuple[int, ...], offset: int) -> TensorProto:
        tensor = TensorProto(name=name, data_type=_ELEMENT_TYPES[stored.dtype], dims=shape)
        tensor.data_location = TensorProto.EXTERNAL
        where = {"location": self.file_name, "offset": str(offset), "length": str(stored.bytes)}
        tensor.external_data.extend(StringStringEntryProto(key=k, value=v) for k, v in where.items())
        return tensor
