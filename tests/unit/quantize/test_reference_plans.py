"""Plans by LSAQ and by the rule of thumb, worked out on paper, and their points on the curve."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeicl.models.anatomy import EMBEDDING, WeightGroup
from edgeicl.numerics.size import group_bytes
from edgeicl.quantize.allocation import Limit, SizeTable, plan_bytes
from edgeicl.quantize.reference_plans import (
    FIRST_AND_LAST,
    LSAQ,
    first_and_last_plan,
    lsaq_plan,
    reference_plans,
)
from edgeicl.specs.quant_plan import Format
from tests.unit.quantize.test_quantize_stage import ALL, _artifact_bytes, _curve, _run, _target

INT2, INT4, INT8 = (Format(bits=bits, block_size=32) for bits in (2, 4, 8))
OFFERED = (INT2, INT4, INT8)


def _group(name: str) -> WeightGroup:
    return WeightGroup(name, (f"{name}.weight",), (), (32, 32), (32,))


GROUPS = [
    _group(EMBEDDING),
    *(_group(f"layers.{layer}.{half}") for layer in range(4) for half in ("attention", "mlp")),
]
STORED: SizeTable = {group.name: {f: group_bytes(*group.shape, f) for f in OFFERED} for group in GROUPS}
# In bytes: 32 x 32 weights take 384 in int2, 640 in int4 and 1,152 in int8, scales included.
ALL_INT4 = 9 * 640


def _bits(plan: dict[str, Format] | None) -> list[int]:
    """Of the embedding and the four blocks; every block has one format."""
    assert plan is not None
    for layer in range(4):
        assert plan[f"layers.{layer}.attention"] == plan[f"layers.{layer}.mlp"]
    return [plan[EMBEDDING].bits, *(plan[f"layers.{layer}.mlp"].bits for layer in range(4))]


def test_lsaq_raises_the_block_that_changes_its_state_most() -> None:
    """The embedding counts as 1: it comes first, then what 2 * 512 bytes more buy for one block."""
    limit = Limit(STORED, ALL_INT4 + 512 + 2 * 512)
    assert _bits(lsaq_plan(GROUPS, STORED, [limit], [0.9, 0.2, 0.9, 0.9])) == [8, 4, 8, 4, 4]
    assert _bits(lsaq_plan(GROUPS, STORED, [limit], [0.9, 0.9, 0.9, 0.2])) == [8, 4, 4, 4, 8]


def test_first_and_last_layers_take_the_most_that_fits() -> None:
    """8 bits for the embedding and two blocks, 4 for the others: 5 * 1,152 + 4 * 640 bytes."""
    exact = 5 * 1152 + 4 * 640
    assert _bits(first_and_last_plan(GROUPS, STORED, [Limit(STORED, exact)])) == [8, 8, 4, 4, 8]
    one_less = first_and_last_plan(GROUPS, STORED, [Limit(STORED, exact - 1)])
    assert _bits(one_less) == [8, 8, 2, 2, 8]
    assert plan_bytes(one_less or {}, STORED) == 5 * 1152 + 4 * 384


def test_no_plan_where_none_fits_or_nothing_lies_between() -> None:
    too_little = [Limit(STORED, 9 * 384 - 1)]
    assert lsaq_plan(GROUPS, STORED, too_little, [0.5] * 4) is None
    assert first_and_last_plan(GROUPS, STORED, too_little) is None
    two = [group for group in GROUPS if group.layer in (None, 0, 1)]
    sizes = {group.name: STORED[group.name] for group in two}
    assert first_and_last_plan(two, sizes, [Limit(sizes, 10**6)]) is None


@pytest.mark.parametrize("importance", ["sensitivity", "jaccard"])
def test_points_keep_the_budget_and_are_measured(student: Path, tmp_path: Path, importance: str) -> None:
    limit = _artifact_bytes(student, 15_000)
    curve = _curve(_run(student, tmp_path, _target(ALL, artifact_bytes=limit), importance=importance))
    (lsaq,) = (point for point in curve.points if point.kind == "rule")  # two layers have no middle
    chosen = next(point for point in curve.points if point.kind == "chosen")
    assert lsaq.label == LSAQ != FIRST_AND_LAST
    assert lsaq.artifact_bytes <= limit
    assert lsaq.measured_loss is not None
    assert chosen.measured_loss is not None
    if importance == "sensitivity":
        assert chosen.measured_loss < lsaq.measured_loss
    else:  # the same ranking, with the errors of these weights instead of usual ones
        assert chosen.artifact_bytes == lsaq.artifact_bytes


def test_the_settings_of_lsaq_are_of_the_stores_key(student: Path, tmp_path: Path) -> None:
    target = _target(ALL, artifact_bytes=_artifact_bytes(student, 15_000))
    first, same, other = (_run(student, tmp_path, target, top_k=k).digest for k in (10, 10, 3))
    assert first == same != other


def test_nothing_is_known_of_a_student_without_blocks(student: Path) -> None:
    sizes = {EMBEDDING: STORED[EMBEDDING]}
    space: Any = SimpleNamespace(stored=sizes, limits=[Limit(sizes, 10**6)])
    assert reference_plans([GROUPS[0]], space, ()) == {}
