"""Importance through the stage: what every method's table says, and what makes another table."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeicl.specs.importance import ImportanceTable
from edgeicl.specs.quant_plan import QuantPlan
from tests.unit.quantize.test_quantize_stage import INT4, INT8, _artifact_bytes, _run, _target


def _table(student: Path, store: Path, **settings: object) -> ImportanceTable:
    target = _target([INT4, INT8], artifact_bytes=_artifact_bytes(student, 17_000))
    output = _run(student, store, target, **settings)
    plan = QuantPlan.model_validate_json((output.path / "plan.json").read_bytes())
    assert plan.importance == settings.get("importance", "sensitivity")
    return ImportanceTable.model_validate_json((output.path / "importance.json").read_bytes())


@pytest.mark.parametrize("method", ["jaccard", "cosine", "zscore"])
def test_a_method_that_rates_blocks_says_how(student: Path, tmp_path: Path, method: str) -> None:
    table = _table(student, tmp_path, importance=method)
    assert table.method == method
    assert table.blocks is not None
    assert len(table.blocks) == 2
    assert all(0 <= score <= 1 for score in table.blocks)
    assert "relative squared error" in table.unit


def test_options_of_lsaq_are_tables_of_their_own(student: Path, tmp_path: Path) -> None:
    found = [
        _table(student, tmp_path, importance="jaccard", **options).blocks
        for options in (
            {},
            {"lsaq": {"final_norm": False}},
            {"lsaq": {"sets_over": "position"}},
            {"top_k": 3},
        )
    ]
    assert len(set(found)) == 4
    made = len(list((tmp_path / "importance").glob("*/importance.json")))
    assert made == 4 * 2
    _table(student, tmp_path, importance="sensitivity", lsaq={"final_norm": False})
    _table(student, tmp_path, importance="sensitivity", top_k=3)
    assert len(list((tmp_path / "importance").glob("*/importance.json"))) == made + 2  # they don't matter there
