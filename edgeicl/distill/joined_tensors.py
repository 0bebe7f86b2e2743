"""One safetensors file from the tensors of many, with one of them in memory at a time.

The format (of the library safetensors): 8 bytes with the length of a header in JSON, then the tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open

_BYTES = {"F16": 2, "F32": 4}


class Part(NamedTuple):
    """The tensor `name` of a safetensors file, float16 or float32."""

    file: Path
    name: str


def write_joined(path: Path, tensors: Mapping[str, Sequence[Part]]) -> None:
    """Writes each of `tensors`, whose parts are joined along the first axis."""
    header: dict[str, Any] = {}
    end = 0
    for name, parts in tensors.items():
        dtype, shape = _joined_shape(parts)
        start, end = end, end + _BYTES[dtype] * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors start at a multiple of 8 bytes
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for parts in tensors.values():
            for part in parts:
                with safe_open(part.file, framework="np") as opened:
                    stream.write(opened.get_tensor(part.name).tobytes())


def _joined_shape(parts: Sequence[Part]) -> tuple[str, list[int]]:
    rows, rest, dtype = 0, [0], ""
    for part in parts:
        with safe_open(part.file, framework="np") as opened:
            found = opened.get_slice(part.name)
            (more, *rest), dtype = found.get_shape(), found.get_dtype()
            rows += more
    return dtype, [rows, *rest]
