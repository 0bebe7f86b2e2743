from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edgeicl.specs.catalog import load_recipe
from edgeicl.specs.loading import dump_yaml, parse_spec
from edgeicl.specs.located import located
from edgeicl.specs.meta_kd import MetaKD
from edgeicl.specs.recipe import Recipe

CR = {"source": "file:cr.jsonl"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "expected either domain_column or domains"),
        ({"domain_column": "genre", "domains": {"cr": CR}}, "expected either domain_column or domains"),
        ({"domains": {"mr": CR}}, "domains names 'mr' too, whose examples are task.train"),
        (
            {"domain_column": "genre", "confusion": {"weight": 0}},
            "no domain head is trained; expected matching.domain_feature: 0 too",
        ),
        (
            {"domain_column": "genre", "matching": {"hidden": 0, "attention": 0, "domain_feature": 0}},
            "are all 0 with epochs 10; expected one above 0, or epochs 0",
        ),
        ({"domain_column": "genre", "domain_exampels": 4}, "Extra inputs are not permitted"),
    ],
)
def test_what_does_not_go_together(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        MetaKD.model_validate({"domain": "mr"} | values)


def test_both_ways_to_name_domains() -> None:
    assert MetaKD.model_validate({"domain": "mr", "domain_column": "genre"}).domains == {}
    assert MetaKD.model_validate({"domain": "mr", "domains": {"cr": CR}}).domains["cr"].label == "label"


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"meta_kd": None}, "meta_kd: missing; expected the section distill.meta_kd"),
        (
            {"teacher": {"model": "builtin:nli-teacher", "load_in": "8bit"}},
            "teacher.load_in: 8bit; expected fp32",
        ),
        (
            {"objective": {"over": "vocabulary"}},
            "objective.over: vocabulary; expected verbalizers",
        ),
    ],
)
def test_what_the_method_needs_of_the_recipe(changed: dict[str, Any], message: str) -> None:
    values = load_recipe("meta-kd").model_dump()
    values["distill"] |= changed
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(values)


def test_paths_of_domains_are_made_absolute(tmp_path: Path) -> None:
    (tmp_path / "cr.jsonl").touch()
    values = load_recipe("meta-kd").model_dump()
    values["distill"]["meta_kd"] |= {"domain_column": None, "domains": {"cr": CR}}
    found = located(Recipe.model_validate(values), tmp_path)
    assert found.distill.meta_kd is not None
    assert found.distill.meta_kd.domains["cr"].source == f"file:{tmp_path.resolve()}/cr.jsonl"
    assert parse_spec(dump_yaml(found), Recipe, source="elsewhere") == found
