"""Sizes in bytes, as people write them: `100 MB` is 100,000,000, `1.5 GiB` is 1,610,612,736."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

_UNITS = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_WRITTEN = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*$")
# JSON Schema's patterns can't ignore case.
_SCHEMA_PATTERN = r"^\s*[0-9]+(\.[0-9]+)?\s*([KkMmGg][Ii]?)?[Bb]\s*$"


def parse_byte_size(value: object) -> object:
    """`"160MB"` -> 160000000; a plain number passes through. ValueError names the units."""
    if not isinstance(value, str):
        return value
    match = _WRITTEN.match(value)
    unit = next((u for u in _UNITS if match and u.lower() == match[2].lower()), None)
    if match is None or unit is None:
        raise ValueError(f"{value!r} is no size; expected bytes, or a number with {', '.join(_UNITS)}")
    return round(float(match[1]) * _UNITS[unit])


def format_byte_size(count: float) -> str:
    """12345678 -> `12.3 MB` (decimal units, as phones and stores count)."""
    for unit in ("GB", "MB", "kB"):
        if abs(count) >= _UNITS[unit]:
            return f"{count / _UNITS[unit]:.1f} {unit}"
    return f"{int(count)} B"


ByteSize = Annotated[
    int,
    Field(ge=1),
    BeforeValidator(parse_byte_size),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": _SCHEMA_PATTERN}]}
    ),
]
