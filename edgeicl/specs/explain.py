"""One error of pydantic, said the way people say it: what was found, what is allowed, what was meant."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from edgeicl.errors import Problem
from edgeicl.specs.broken_rules import BrokenRulesError
from edgeicl.specs.document import Document, KeyPath
from edgeicl.specs.nearest import nearest, one_of

_WANTED = {
    "string_type": "expected text; quote it if it looks like a number",
    "int_type": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "bool_type": "expected true or false",
    "tuple_type": "expected a list",
    "dict_type": "expected a section of keys and values",
    "model_type": "expected a section of keys and values",
    "model_attributes_type": "expected a section of keys and values",
    "none_required": "expected nothing",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
    "multiple_of": ("multiple_of", "a multiple of"),
}
_LONGEST_VALUE = 48


def follows_from_another(detail: ErrorDetails, others: list[ErrorDetails]) -> bool:
    """Whether it is about a list that counts as too short only because some of its items are wrong."""
    location = detail["loc"]
    return detail["type"] == "too_short" and any(
        len(other["loc"]) > len(location) and other["loc"][: len(location)] == location for other in others
    )


def can_be_left_out(detail: ErrorDetails, path: KeyPath, model: type[BaseModel]) -> bool:
    """Whether the document without the wrong key can be checked further without inventing new mistakes.

    True of unknown keys, and of numbers and the like that fall back to a default.
    """
    if detail["type"] == "extra_forbidden":
        return True
    section = _section(path[:-1], model) if path else None
    known = section.model_fields.get(path[-1]) if section else None
    return known is not None and isinstance(known.default, (int, float)) and not _literals(path, model)


def explain(detail: ErrorDetails, path: KeyPath, model: type[BaseModel], document: Document) -> list[Problem]:
    """The problems that `detail` is, at `path` of `document`, in the terms of `model`."""
    error = detail.get("ctx", {}).get("error")
    if isinstance(error, BrokenRulesError):
        return [_broken((*path, *key.split(".")), text, document) for key, text in error.broken]
    found, expected = _said(detail, path, model)
    return [Problem(".".join(path) or "(whole file)", found, expected, document.line_of(path))]


def _broken(path: KeyPath, text: str, document: Document) -> Problem:
    found, _, expected = text.rpartition("; ")
    return Problem(".".join(path), found, expected, document.line_of(path))


def _said(detail: ErrorDetails, path: KeyPath, model: type[BaseModel]) -> tuple[str, str]:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return "unknown key", _where_it_belongs(path, model)
    if kind == "missing":
        return "missing", _meaning(path, model)
    value = _shown(detail["input"])
    if kind == "literal_error":
        allowed = _literals(path, model) or str(context.get("expected", "")).replace("'", "").split(", ")
        meant = detail["input"] if isinstance(detail["input"], str) else ""  # 3 is no misspelt 32
        return value, one_of(meant, allowed)
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return value, f"expected {words} {context[key]:g}"
    if kind == "tuple_type" and isinstance(detail["input"], str | int | float):
        return value, f"expected a list: [{detail['input']}]"
    if kind in ("model_type", "model_attributes_type") and _is_source(path, model, detail["input"]):
        return value, f'expected a section: {{source: "{detail["input"]}"}}'
    if kind in ("too_short", "too_long"):
        bound = context.get("min_length", context.get("max_length"))
        words = "at least" if kind == "too_short" else "at most"
        return f"{context.get('actual_length')} entries", f"expected {words} {bound}"
    if kind == "string_pattern_mismatch":
        return value, _meaning(path, model, otherwise=f"expected text matching {context.get('pattern')}")
    if kind in ("value_error", "assertion_error"):
        said = str(context.get("error", detail["msg"]))
        about, semicolon, expected = said.rpartition("; ")  # what was found may hold one too
        return (about, expected) if semicolon else (value, said)
    return value, _WANTED.get(kind, detail["msg"])


def _is_source(path: KeyPath, model: type[BaseModel], given: object) -> bool:
    section = _section(path, model)
    return isinstance(given, str) and section is not None and "source" in section.model_fields


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"a section with {', '.join(map(str, value)) or 'nothing'}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = "nothing" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 4] + " ..."


def _where_it_belongs(path: KeyPath, model: type[BaseModel]) -> str:
    """The nearest key of the same section; else the section whose key it is; else all that are allowed."""
    section = _section(path[:-1], model)
    allowed = list(section.model_fields) if section else []
    if nearest(path[-1], allowed) is None:
        elsewhere = [".".join(known) for known in _all_keys(model, ()) if known[-1] == path[-1]]
        if elsewhere:
            return f"did you mean {' or '.join(elsewhere)}?"
    return one_of(path[-1], allowed)


def _meaning(path: KeyPath, model: type[BaseModel], *, otherwise: str = "") -> str:
    section = _section(path[:-1], model)
    known = section.model_fields.get(path[-1]) if section else None
    if known is None:
        return otherwise or "expected a value"
    inner = _section(path, model)
    if inner is not None and not _is_many(known.annotation):
        return f"expected a section with {', '.join(inner.model_fields)}"
    literals = _literals(path, model)
    if literals:
        return f"expected {' or '.join(literals)}"
    if known.description:
        return f"expected: {known.description}"
    return otherwise or "expected a value; it has no default"


def _section(path: KeyPath, model: type[BaseModel]) -> type[BaseModel] | None:
    """The model at `path`, through lists; None where `path` is no section."""
    annotation: Any = model
    for name in path:
        inner = _model_in(annotation)
        if inner is None:
            return None
        if name.isdecimal() and inner is not annotation and _is_many(annotation):
            annotation = inner
            continue
        if name not in inner.model_fields:
            return None
        annotation = inner.model_fields[name].annotation
    return _model_in(annotation)


def _is_many(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (tuple, list, dict, Mapping)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if isinstance(annotation, types.UnionType) or typing.get_args(annotation):
        return next(filter(None, map(_model_in, typing.get_args(annotation))), None)
    return None


def _literals(path: KeyPath, model: type[BaseModel]) -> list[str]:
    section = _section(path[:-1], model)
    known = section.model_fields.get(path[-1]) if section else None
    options = [known.annotation] if known else []
    if known:
        options += typing.get_args(known.annotation)
    for option in options:
        if typing.get_origin(option) is typing.Literal:
            return [str(value) for value in typing.get_args(option)]
    return []


def _all_keys(model: type[BaseModel], path: KeyPath) -> list[KeyPath]:
    keys: list[KeyPath] = []
    for name, known in model.model_fields.items():
        keys.append((*path, name))
        inner = _model_in(known.annotation)
        if inner is not None:
            keys += _all_keys(inner, (*path, name))
    return keys
