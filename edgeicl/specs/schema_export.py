"""JSON Schemas of what people write, for editors and other programs."""

from __future__ import annotations

from typing import Any

from edgeicl.specs.quant_plan import QuantPlan
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.spec import Spec
from edgeicl.specs.target import Target

WRITTEN_SPECS: dict[str, type[Spec]] = {"recipe": Recipe, "target": Target, "plan": QuantPlan}


def json_schema(name: str) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of `recipe`, `target` or `plan`. KeyError for any other name."""
    schema = WRITTEN_SPECS[name].model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"edgeicl {name}",
        **{key: value for key, value in schema.items() if key != "title"},
    }
