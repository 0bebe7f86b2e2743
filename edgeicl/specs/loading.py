"""Recipes, targets and plans from files: every problem at once, each with its line.

Files are validated strictly, as JSON would be: text is no number, a number is no text.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML

from edgeicl.errors import Problem, SpecError
from edgeicl.specs.document import Document, KeyPath, parse_document, read_document
from edgeicl.specs.explain import can_be_left_out, explain, follows_from_another
from edgeicl.specs.overrides import apply_overrides
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.spec import Spec

SpecType = TypeVar("SpecType", bound=Spec)


def load_spec(
    path: Path, model: type[SpecType], *, overrides: Sequence[str] = (), with_data: bool = False
) -> SpecType:
    """The `model` written in the file `path`, after `overrides`. SpecError lists every problem.

    `with_data`: a data file that it names and that isn't there is a problem too.
    """
    document = read_document(path, kind=model.__name__.lower().removeprefix("quant"))
    return _validated(document, model, overrides, base_folder=path.parent if with_data else None)


def parse_spec(
    text: str,
    model: type[SpecType],
    *,
    source: str,
    overrides: Sequence[str] = (),
    base_folder: Path | None = None,
) -> SpecType:
    """The `model` written in `text`; `source` is what problems call it.

    `base_folder`: where paths start, if a data file that isn't there is to be a problem too.
    """
    return _validated(parse_document(text, source=source), model, overrides, base_folder=base_folder)


def dump_yaml(spec: Spec) -> str:
    """`spec` as YAML with every default written out; `load_spec` reads it back to an equal one."""
    yaml = YAML()
    yaml.width = 110
    stream = io.StringIO()
    yaml.dump(spec.model_dump(mode="json"), stream)
    return stream.getvalue()


def _validated(
    document: Document, model: type[SpecType], overrides: Sequence[str], *, base_folder: Path | None = None
) -> SpecType:
    written = json.dumps(document.values, default=str)
    apply_overrides(document, overrides)
    problems = list(document.problems)
    values = document.values
    problems.extend(
        Problem(".".join(path), "not finite", "expected a number", document.line_of(path))
        for path in _non_finite(values, ())
    )
    spec: SpecType | None = None
    told: set[KeyPath] = set()
    # Once more without the keys in question and without a look at data files: a section is checked as a whole
    # only where each key is good.
    for context in ({"base_folder": base_folder} if base_folder is not None else None, None):
        try:
            spec = model.model_validate_json(json.dumps(values, default=str), strict=True, context=context)
            break
        except ValidationError as error:
            doubtful: list[KeyPath] = []
            details = error.errors(include_url=False)
            for detail in details:
                if follows_from_another(detail, details):
                    continue
                path = tuple(str(part) for part in detail["loc"] if part != "[key]")
                if can_be_left_out(detail, path, model):
                    doubtful.append(path)
                if path not in told:
                    told.add(path)
                    problems += explain(detail, path, model, document)
            if not doubtful and context is None:
                break
            values = json.loads(json.dumps(values, default=str))
            for path in doubtful:
                _drop(values, path)
    if problems or spec is None:
        if overrides and _sound(written, model, base_folder):  # what is wrong came with the command line
            problems = [replace(problem, line=None) for problem in problems]
        problems.sort(key=lambda problem: (problem.line is None, problem.line or 0))
        if all(problem.line is None for problem in problems) and overrides:
            next_step = "correct what was given on the command line; nothing else is wrong"
        elif model is Recipe:
            next_step = f"correct these, then run `edgeicl check {document.source}`"
        else:
            next_step = f"correct {document.source}"
        raise SpecError(document.source, problems, next_step=next_step)
    return spec


def _sound(values: str, model: type[Spec], base_folder: Path | None) -> bool:
    """Whether `values` in JSON are a `model`."""
    try:
        model.model_validate_json(
            values, strict=True, context={"base_folder": base_folder} if base_folder else None
        )
    except ValidationError:
        return False
    return True


def _non_finite(value: Any, path: KeyPath) -> list[KeyPath]:
    """Paths of infinities and NaNs, which YAML can write and JSON can't."""
    if isinstance(value, float):
        return [] if math.isfinite(value) else [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in _non_finite(item, (*path, str(key)))]


def _drop(values: Any, path: KeyPath) -> None:
    for name in path[:-1]:
        values = values[int(name)] if isinstance(values, list) else values[name]
    values.pop(path[-1], None)
