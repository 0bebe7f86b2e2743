"""Solvers of the quantize stage: which weights and losses they give, and what the store tells apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeicl.numerics.affine import QuantizedMatrix, dequantize
from edgeicl.numerics.hqq import half_quadratic
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.importance import ImportanceTable
from edgeicl.specs.quant_plan import QuantPlan
from edgeicl.store import StageOutput
from tests.unit.quantize.test_quantize_stage import INT2, INT4, INT8, _artifact_bytes, _run, _target

FORMATS = [INT2, INT4, INT8, INT4 | {"symmetric": False}]


def _values(output: StageOutput) -> dict[str, np.ndarray]:
    """Group -> the weights that the output's file holds."""
    plan = QuantPlan.model_validate_json((output.path / "plan.json").read_bytes())
    stored = load_file(output.path / "weights.safetensors")
    found = {}
    for name, format_ in plan.formats().items():
        assert format_.block_size is not None
        zero_points = stored.get(f"{name}.zero_points")
        codes, scales = stored[f"{name}.codes"], stored[f"{name}.scales"]
        found[name] = dequantize(QuantizedMatrix(codes, scales, zero_points, format_.bits, format_.block_size))
    return found


def _table(output: StageOutput) -> ImportanceTable:
    return ImportanceTable.model_validate_json((output.path / "importance.json").read_bytes())


def test_hqq_rounds_the_weights_of_its_plan(student: Path, weights: StudentWeights, tmp_path: Path) -> None:
    target = _target(FORMATS, artifact_bytes=_artifact_bytes(student, 15_000))
    output = _run(student, tmp_path, target, solver="hqq")
    plan = QuantPlan.model_validate_json((output.path / "plan.json").read_bytes())
    for name, values in _values(output).items():
        expected = dequantize(half_quadratic(weights.matrices[name], plan.formats()[name]))
        assert np.array_equal(values, expected)


def test_solvers_share_nothing_that_differs(student: Path, tmp_path: Path) -> None:
    """Sensitivity is measured with the solver; Jaccard losses don't depend on it, and are made once."""
    target = _target([INT4], artifact_bytes=_artifact_bytes(student, 15_000))
    nearest, half = (_run(student, tmp_path, target, solver=solver) for solver in ("rtn", "hqq"))
    assert _table(nearest).losses() != _table(half).losses()
    made = len(list((tmp_path / "importance").glob("*/importance.json")))
    assert made == 2
    first, second = (
        _run(student, tmp_path, target, solver=solver, importance="jaccard") for solver in ("rtn", "hqq")
    )
    assert len(list((tmp_path / "importance").glob("*/importance.json"))) == made + 1
    assert _table(first) == _table(second)
    one, other = _values(first), _values(second)
    assert any(not np.array_equal(one[name], other[name]) for name in one)
    assert first.digest != second.digest


@pytest.mark.parametrize("solver", ["rtn", "hqq"])
def test_equal_inputs_give_equal_bytes(student: Path, tmp_path: Path, solver: str) -> None:
    target = _target(FORMATS, artifact_bytes=_artifact_bytes(student, 15_000))
    written = []
    for name in ("one", "other"):
        output = _run(student, tmp_path / name, target, solver=solver)
        written.append([path.read_bytes() for path in sorted(output.path.iterdir())])
    assert written[0] == written[1]
