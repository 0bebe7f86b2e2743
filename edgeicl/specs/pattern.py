"""Patterns: the text around an example, with the names of its columns in braces."""

from __future__ import annotations

import string
from typing import Annotated

from pydantic import AfterValidator

from edgeicl.specs.lama_template import around_answer, is_template


def pattern_columns(pattern: str) -> tuple[str, ...]:
    """Names of the columns in `pattern`, each once, in order. ValueError for none, or for no plain name."""
    try:
        parts = list(string.Formatter().parse(pattern))
    except ValueError as error:
        raise ValueError(f"{pattern!r} can't be read: {error}; expected {{{{ and }}}} for braces") from error
    columns: dict[str, None] = {}
    for _, name, spec, conversion in parts:
        if name is None:
            continue
        if not name.isidentifier() or spec or conversion:
            raise ValueError(f"{pattern!r} holds '{{{name}}}'; expected a column's plain name in braces")
        columns[name] = None
    if not columns:
        raise ValueError(f"{pattern!r} names no column; expected at least one, such as {{premise}}")
    return tuple(columns)


def _with_columns(pattern: str) -> str:
    pattern_columns(around_answer(pattern)[0] if is_template(pattern) else pattern)
    return pattern


def _no_template(pattern: str) -> str:
    if is_template(pattern):
        raise ValueError(
            f"{pattern!r} is a template of LAMA; expected columns in braces: only task.pattern is one"
        )
    return _with_columns(pattern)


Pattern = Annotated[str, AfterValidator(_with_columns)]
"""With columns in braces, or a template of LAMA."""

PlainPattern = Annotated[str, AfterValidator(_no_template)]
"""With columns in braces."""
