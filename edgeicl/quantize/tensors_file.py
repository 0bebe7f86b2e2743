"""A safetensors file written one tensor at a time: the library takes all of them at once.

The format (https://github.com/huggingface/safetensors): eight bytes with the length of a header in JSON, the
header, the numbers without gaps. Places are known from types and shapes, so tensors may come in any order; the
bytes are those that the library would write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from edgeicl.errors import IntegrityError

Announced = tuple[str, tuple[int, ...]]
"""Type, as safetensors names it, and shape."""

_TYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "U8": np.dtype(np.uint8),
}
_ALIGNMENT_BYTES = 8


class TensorsFile:
    """A context in which each announced tensor is written once."""

    def __init__(self, path: Path, announced: Mapping[str, Announced]) -> None:
        self._path = path
        # widest items first, then by name, as the library sorts them
        order = sorted(announced.items(), key=lambda item: (-_TYPES[item[1][0]].itemsize, item[0]))
        header: dict[str, Any] = {}
        end = 0
        for name, (kind, shape) in order:
            start, end = end, end + prod(shape) * _TYPES[kind].itemsize
            header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [start, end]}
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % _ALIGNMENT_BYTES)
        self._head = len(text).to_bytes(8, "little") + text
        self._waiting = header
        self._stream = path.open("wb")

    def __enter__(self) -> Self:
        self._stream.write(self._head)
        return self

    def write(self, name: str, values: NDArray[Any]) -> None:
        """IntegrityError unless `values` are announced, as they are, and new."""
        entry = self._waiting.pop(name, None)
        found = [values.dtype, list(values.shape)]
        expected = None if entry is None else [_TYPES[entry["dtype"]], entry["shape"]]
        if entry is None or found != expected:
            raise IntegrityError(f"{self._path}: tensor {name} is {found}; expected {expected}")
        self._stream.seek(len(self._head) + entry["data_offsets"][0])
        self._stream.write(np.ascontiguousarray(values).data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Literal[False]:
        self._stream.close()
        if error is None and self._waiting:
            raise IntegrityError(f"{self._path} lacks {', '.join(self._waiting)}")
        return False
