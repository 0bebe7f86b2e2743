"""The JSON Schemas accept what edgeicl accepts and refuse what it refuses."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from edgeicl.errors import SpecError
from edgeicl.specs.catalog import shipped
from edgeicl.specs.loading import parse_spec
from edgeicl.specs.schema_export import WRITTEN_SPECS, json_schema
from tests.unit.samples import PLAN

SHIPPED = [(kind, path) for kind in ("recipe", "target") for path in shipped(f"{kind}s").values()]


def validator(kind: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json_schema(kind))


def shipped_values(kind: str, name: str) -> dict[str, Any]:
    values: dict[str, Any] = YAML(typ="safe").load(shipped(f"{kind}s")[name])
    return values


@pytest.mark.parametrize("kind", WRITTEN_SPECS)
def test_schemas_are_schemas(kind: str) -> None:
    schema = json_schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("kind", WRITTEN_SPECS)
def test_schemas_hold_keywords_of_json_schema_only(kind: str) -> None:
    """An unknown keyword is no error to validators: it would be a bound that nobody checks."""
    known = set(chain(jsonschema.Draft202012Validator.VALIDATORS, ("$defs", "$schema", "title", "description")))
    unknown: set[str] = set()

    def look(schema: Any) -> None:
        if not isinstance(schema, dict):
            return
        unknown.update(set(schema) - known - {"default"})
        for inner in (schema.get("items"), schema.get("additionalProperties"), *schema.get("anyOf", ())):
            look(inner)
        for name in ("properties", "$defs"):
            for inner in schema.get(name, {}).values():
                look(inner)

    look(json_schema(kind))
    assert not unknown


@pytest.mark.parametrize("kind", WRITTEN_SPECS)
def test_every_key_says_what_it_is(kind: str) -> None:
    """Of its own, or by the section that it refers to."""
    schema = json_schema(kind)
    sections = {"": schema, **schema.get("$defs", {})}
    keys = {
        f"{section}.{key}": known
        for section, inner in sections.items()
        for key, known in inner["properties"].items()
    }
    assert keys
    described = {f"#/$defs/{name}" for name, inner in sections.items() if inner.get("description")}
    assert not [
        key
        for key, known in keys.items()
        if not known.get("description") and known.get("$ref") not in described
    ]


@pytest.mark.parametrize(("kind", "path"), SHIPPED, ids=lambda value: getattr(value, "stem", value))
def test_whatever_is_shipped_fits_its_schema(kind: str, path: Path) -> None:
    validator(kind).validate(YAML(typ="safe").load(path))


def test_a_plan_fits_its_schema_and_a_changed_one_does_not() -> None:
    values = PLAN.model_dump(mode="json")
    validator("plan").validate(values)
    values["groups"][0]["format"]["bits"] = 3
    with pytest.raises(jsonschema.ValidationError):
        validator("plan").validate(values)


def test_a_changed_recipe_does_not_fit() -> None:
    values = shipped_values("recipe", "quickstart")
    values["distill"]["method"] = "magic"
    with pytest.raises(jsonschema.ValidationError, match="magic"):
        validator("recipe").validate(values)


@pytest.mark.parametrize("size", [1, 160_000_000, "80 MB", "1.5GiB", " 12 kb ", "7B"])
def test_sizes_that_fit(size: int | str) -> None:
    assert accepted(size) == (True, True)


@pytest.mark.parametrize("size", [0, -5, 1.5, "80", "MB", "80 parsecs", "-1 MB", "1 iB", True])
def test_sizes_that_do_not(size: float | str) -> None:
    assert accepted(size) == (False, False)


def accepted(size: float | str) -> tuple[bool, bool]:
    """Whether the schema and edgeicl take `size` as a target's budget."""
    values = shipped_values("target", "tiny-cpu")
    values["budget"]["artifact_bytes"] = size
    try:
        parse_spec(json.dumps(values), WRITTEN_SPECS["target"], source="t")
    except SpecError:
        read = False
    else:
        read = True
    return bool(validator("target").is_valid(values)), read
