"""The JSON Schemas accept what edgeicl accepts and refuse what it refuses."""

from __future__ import annotations

import jsonschema
import pytest
from ruamel.yaml import YAML

from edgeicl.specs.catalog import shipped
from edgeicl.specs.schema_export import WRITTEN_SPECS, json_schema


@pytest.mark.parametrize("kind", WRITTEN_SPECS)
def test_schemas_are_schemas(kind: str) -> None:
    schema = json_schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize("path", shipped("recipes").values(), ids=lambda path: path.stem)
def test_shipped_recipes_fit_the_schema_and_changed_ones_do_not(path: object) -> None:
    values = YAML(typ="safe").load(path)
    validator = jsonschema.Draft202012Validator(json_schema("recipe"))
    validator.validate(values)
    values["distill"]["method"] = "magic"
    with pytest.raises(jsonschema.ValidationError, match="magic"):
        validator.validate(values)
