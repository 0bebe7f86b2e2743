"""A YAML (or JSON) file as plain values, with the line of every key and the mistakes YAML itself can hold."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from edgeicl.errors import Problem, SpecError

KeyPath = tuple[str, ...]
"""Keys and list indices from the top of a document, all as text: `("targets", "0")`."""
Key = tuple[KeyPath, int, int | None]
"""A path, its line, and the line of the same key's first appearance if it repeats one."""


class _Constructor(SafeConstructor):
    """Reads dates as the text they are; JSON has none either."""


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


@dataclass
class Document:
    """The values of a file and where each stands. `lines` counts from 1."""

    source: str
    values: Any
    lines: dict[KeyPath, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    overridden: set[KeyPath] = field(default_factory=set)

    def line_of(self, path: KeyPath) -> int | None:
        """Line of `path`, or of the nearest key around it; None where the command line decides it."""
        if any(path[: len(override)] == override for override in self.overridden):
            return None
        inside = {override[: len(path) + 1] for override in self.overridden if override[: len(path)] == path}
        written = {known for known in self.lines if known[:-1] == path}
        if inside and written <= inside:  # every key of the section comes from the command line
            return None
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return 1


def read_document(path: Path, *, kind: str) -> Document:
    """The document in `path`. SpecError where the file can't be read or is no YAML at all."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        problem = Problem(kind.upper(), error.strerror or str(error), f"expected a readable {kind} file")
        # only a recipe names a plan
        start = ", which starts at the recipe's folder, in --set too" if kind == "plan" else ""
        raise SpecError(str(path), [problem], next_step=f"check the path of the {kind}{start}") from error
    except UnicodeDecodeError as error:
        problem = Problem(kind, f"byte {error.start} is no UTF-8", "expected a UTF-8 text file", line=1)
        raise SpecError(str(path), [problem], next_step=f"name a {kind}, or save it as UTF-8 text") from error
    return parse_document(text, source=str(path))


def parse_document(text: str, *, source: str) -> Document:
    """The document in `text`. SpecError with the line where it is no YAML; repeated keys are collected."""
    try:
        keys, values = _parsed(text)
    except YAMLError as error:
        next_step = f"correct the line in {source}, or one before it"
        raise SpecError(source, [_syntax_problem(error)], next_step=next_step) from error
    if keys is None:
        problem = Problem("(whole file)", "empty", "expected keys and values", line=1)
        raise SpecError(source, [problem], next_step=f"write them into {source}, or name another file")
    document = Document(source, values)
    for path, line, first_line in keys:
        if first_line is None:
            document.lines[path] = line
        else:
            found = f"repeats the key of line {first_line}"
            document.problems.append(Problem(".".join(path), found, "expected each key once", line=line))
    return document


def parse_value(text: str) -> Any:
    """What YAML makes of `text`, as plain Python values. Raises ruamel's YAMLError."""
    return _parsed(text)[1]


def _parsed(text: str) -> tuple[list[Key] | None, Any]:
    """Keys and values of `text`; no keys, not even an empty list of them, where it holds nothing."""
    root: Node | None = YAML().compose(io.StringIO(text))
    keys = list(_keys(root, (), ())) if root is not None else None
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    yaml.allow_duplicate_keys = True  # reported by parse_document, all of them, with lines
    return keys, _unshared(yaml.load(text))


def _unshared(value: Any) -> Any:
    """A copy in which an alias is a value of its own, so that setting one place leaves the other alone."""
    if isinstance(value, dict):
        return {key: _unshared(item) for key, item in value.items()}
    return [_unshared(item) for item in value] if isinstance(value, list) else value


def _syntax_problem(error: YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    found = (error.problem if isinstance(error, MarkedYAMLError) else None) or str(error).splitlines()[0]
    return Problem("(syntax)", found, "expected YAML", line=mark.line + 1 if mark is not None else 1)


def _keys(node: Node, path: KeyPath, around: tuple[int, ...]) -> Iterator[Key]:
    """Everything in `node`, in order."""
    if id(node) in around:
        raise MarkedYAMLError(problem="an alias of what it is part of", problem_mark=node.start_mark)
    inside = (*around, id(node))
    if isinstance(node, MappingNode):
        first_lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                raise MarkedYAMLError(problem="a key that is no plain text", problem_mark=key.start_mark)
            name = key.value
            line = key.start_mark.line + 1
            yield (*path, name), line, first_lines.get(name)
            first_lines.setdefault(name, line)
            yield from _keys(value, (*path, name), inside)
    elif isinstance(node, SequenceNode):
        for index, item in enumerate(node.value):
            yield (*path, str(index)), item.start_mark.line + 1, None
            yield from _keys(item, (*path, str(index)), inside)
