"""What a program of ours left on its stdout and stderr."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from edgeicl.errors import BenchError


def parse_answer(text: str, *, who: str, keys: Collection[str] = ()) -> dict[str, Any]:
    """The JSON object on the last line of `text`; libraries may write lines before it.

    Raises:
        BenchError: there is none, or it lacks one of `keys`.
    """
    lines = text.strip().splitlines()
    try:
        value = json.loads(lines[-1])
        if not isinstance(value, dict) or not set(keys) <= set(value):
            raise TypeError
    except (IndexError, ValueError, TypeError) as error:
        raise BenchError(f"{who} wrote no result; its output ends with:\n{last_lines(text)}") from error
    return value


def last_lines(text: str) -> str:
    """The end of what a process wrote."""
    return "\n".join(text.strip().splitlines()[-15:]) or "(nothing)"
