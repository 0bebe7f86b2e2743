"""Overrides from the command line: `--set distill.demonstrations.count=8`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ruamel.yaml.error import YAMLError

from edgeicl.errors import Problem
from edgeicl.specs.document import Document, KeyPath, parse_value


def apply_overrides(document: Document, overrides: Sequence[str]) -> None:
    """Sets `a.b.c=value` in `document`, the value read as YAML; what can't be set becomes a problem.

    Sections on the way that the file lacks are made; whether the keys exist is for validation to say.
    A list item is named by its index: `targets.0=tiny-cpu`.
    """
    for override in overrides:
        key, equals, text = override.partition("=")
        path = tuple(key.strip().split("."))
        if not equals or not all(path):
            expected = "expected KEY=VALUE, such as distill.demonstrations.count=8"
            document.problems.append(Problem(override, "not an override", expected))
            continue
        try:
            value = parse_value(text)
        except YAMLError:
            expected = f"expected YAML; put text with special characters in quotes: '{key}=\"...\"'"
            document.problems.append(Problem(key, f"{text!r} is no YAML", expected))
            continue
        refusal = _set(document.values, path, value)
        if refusal is not None:
            document.problems.append(Problem(key, refusal, "expected the key of a section or list item"))
        else:
            document.overridden.add(path)


def _set(values: Any, path: KeyPath, value: Any) -> str | None:
    """Sets `path` in `values`; says why where it can't."""
    for depth, name in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(values, dict):
            if last:
                values[name] = value
            elif values.get(name) is None:
                values[name] = {}
            values = values[name]
        elif isinstance(values, list):
            if not name.isdecimal() or int(name) >= len(values):
                return f"{name!r} is no index of a list of {len(values)}"
            if last:
                values[int(name)] = value
            values = values[int(name)]
        else:
            return f"{'.'.join(path[:depth]) or 'the file'} is {values!r}, not a section"
    return None
