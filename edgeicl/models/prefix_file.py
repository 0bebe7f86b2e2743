"""Key/value rows that stand before a query, as `prefix.safetensors` holds them.

Set S of demonstrations is a tensor [heads, P, head_size] for each cache input of the graph, called
`S.past_key_values.N.key` or `.value`, in fp32 or fp16, or in
the codes of an 8-bit cache; and, where the rows are those of tokens,
`S.input_ids` [P]. Numpy alone, since this file is copied to devices beside the decoder: reading needs no
library, only writing does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Rows = Mapping[str, Array]
"""Cache input of the graph -> keys or values [heads, P, head_size] of the P positions of one set."""

INPUT_IDS = "input_ids"
_DTYPES = {"F32": np.float32, "F16": np.float16, "I8": np.int8, "I64": np.int64}
_HEADER_LENGTH_BYTES = 8


def prefix_tokens(rows: Rows | None) -> int:
    """Positions that the rows of a set take; 0 where there is no set."""
    return next(iter(rows.values())).shape[1] if rows else 0


def write_prefix(path: Path, sets: Sequence[Rows], ids: Sequence[Array | None]) -> None:
    """Writes key/value rows, and the token ids of those sets that have any."""
    from safetensors.numpy import save_file

    tensors = {f"{number}.{name}": values for number, rows in enumerate(sets) for name, values in rows.items()}
    named = enumerate(ids)
    tensors |= {f"{number}.{INPUT_IDS}": tokens for number, tokens in named if tokens is not None}
    save_file({name: np.ascontiguousarray(values) for name, values in tensors.items()}, path)


def read_prefix(path: Path) -> tuple[list[Rows], list[Array | None]]:
    """What `write_prefix` wrote: rows and token ids of every set, mapped from the file until they are used.

    Raises:
        ValueError: the file is no such file, or its sets aren't numbered from 0.
    """
    sets: dict[int, dict[str, Array]] = {}
    for name, values in _tensors(path).items():
        number, _, tensor = name.partition(".")
        if not number.isdigit() or not tensor:
            raise ValueError(f"{path} holds a tensor {name!r}; expected names such as 0.past_key_values.0.key")
        sets.setdefault(int(number), {})[tensor] = values
    if sorted(sets) != list(range(len(sets))) or not sets:
        raise ValueError(f"{path} holds the sets {sorted(sets)}; expected them to be numbered from 0")
    ordered = [sets[number] for number in range(len(sets))]
    ids = [tensors.pop(INPUT_IDS, None) for tensors in ordered]
    return list(ordered), ids


def _tensors(path: Path) -> dict[str, Array]:
    """The tensors of a safetensors file: the length of a header in JSON, the header, the bytes."""
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(_HEADER_LENGTH_BYTES), "little")
            header: dict[str, Any] = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        data = np.memmap(path, np.uint8, mode="r", offset=_HEADER_LENGTH_BYTES + length)
        return {
            name: data[slice(*entry["data_offsets"])].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
            for name, entry in header.items()
        }
    except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"{path} can't be read as key/value rows: {error!r}") from error
