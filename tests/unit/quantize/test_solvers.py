"""Solvers of the quantize stage: which weights and losses they give, and what the store tells apart."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeicl.errors import DataError
from edgeicl.numerics.affine import QuantizedMatrix, dequantize
from edgeicl.numerics.hqq import half_quadratic
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.importance import ImportanceTable
from edgeicl.specs.quant_plan import QuantPlan
from edgeicl.store import StageOutput
from tests.unit.quantize.test_quantize_stage import INT2, INT4, INT8, _artifact_bytes, _curve, _run, _target

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


@pytest.mark.parametrize("solver", ["rtn", "hqq", "gptq"])
def test_equal_inputs_give_equal_bytes(student: Path, tmp_path: Path, solver: str) -> None:
    target = _target(FORMATS, artifact_bytes=_artifact_bytes(student, 15_000))
    written = []
    for name in ("one", "other"):
        output = _run(student, tmp_path / name, target, solver=solver)
        written.append([path.read_bytes() for path in sorted(output.path.iterdir())])
    assert written[0] == written[1]


def test_gptq_loses_less_than_round_to_nearest(student: Path, tmp_path: Path) -> None:
    """Measured on whole models, at the calibration sequences: the chosen plan's, and int4 for all."""
    target = _target([INT2, INT4, INT8], artifact_bytes=_artifact_bytes(student, 12_160))
    nearest, calibrated = (_curve(_run(student, tmp_path, target, solver=solver)) for solver in ("rtn", "gptq"))
    for label in ("chosen", "uniform int4/block32"):
        first, second = (
            next(point.measured_loss for point in curve.points if point.label == label)
            for curve in (nearest, calibrated)
        )
        assert first is not None
        assert second is not None
        assert second < 0.7 * first


def test_calibration_text_stands_beside_the_examples(student: Path, tmp_path: Path) -> None:
    """Two documents of 40 words: 80 tokens in blocks of the student's 40 positions, no token leads them."""
    words = [f"w{(3 * i) % 90}" for i in range(80)]
    (tmp_path / "text.txt").write_text(" ".join(words[:40]) + "\n\n" + " ".join(words[40:]))
    text = {"source": f"file:{tmp_path / 'text.txt'}"}
    target = _target([INT4], artifact_bytes=_artifact_bytes(student, 15_000))

    def run(**settings: object) -> StageOutput:
        return _run(student, tmp_path / "store", target, solver="gptq", **settings)

    without, both, one = (
        run(),
        run(calibration_text=text),
        run(calibration_text=text, calibration_text_blocks=1),
    )
    assert _table(without).calibration_sequences == 8
    assert _table(both).calibration_sequences == 10
    assert _table(both).calibration_tokens == _table(without).calibration_tokens + 80
    assert _table(one).calibration_sequences == 9
    first, second = _values(without), _values(both)
    assert any(not np.array_equal(first[name], second[name]) for name in first)
    (tmp_path / "short.txt").write_text("w1 w2")
    with pytest.raises(DataError, match="expected at least one block of 40"):
        run(calibration_text={"source": f"file:{tmp_path / 'short.txt'}"})
