"""The time of a decoded token: figures on paper, as a limit of the allocation, and its errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edgeicl.errors import BudgetError, SpecError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.numerics.decode_reads import read_bytes
from edgeicl.quantize.budget import weight_budget
from edgeicl.quantize.plan_space import PlanSpace
from edgeicl.quantize.possible_plans import plan_space
from edgeicl.specs.loading import parse_spec
from edgeicl.specs.quant_plan import Format, QuantPlan
from edgeicl.specs.target import Budget, Calibration, Target
from tests.unit.quantize.test_forecast import foreseen
from tests.unit.quantize.test_quantize_stage import ALL, _run, _target

INT4 = Format(bits=4, block_size=128)
# 1 MB/s, and 2-bit weights at half of it.
SLOW = {
    "bandwidth_bytes_per_second": 1e6,
    "by_bits": [{"bits": 2, "bandwidth_bytes_per_second": 5e5}],
    "fixed_decode_ms": 1.0,
    "measurements": 3,
    "source": "made up",
}


def calibrated(**budget: Any) -> Target:
    return _target(ALL, artifact_bytes=1).model_copy(
        update={
            "budget": Budget.model_validate(budget),
            "calibration": Calibration.model_validate(SLOW),
        }
    )


def opt_125m(formats: list[Format], calibration: Calibration) -> PlanSpace:
    anatomy = anatomy_of({"model_type": "opt"})
    target = calibrated(artifact_bytes=10**9).model_copy(update={"context_tokens": 160})
    budget, _ = weight_budget(target, anatomy, tokenizer_bytes=0, task_bytes=0)
    return plan_space(
        anatomy,
        formats,
        budget,
        by_block=False,
        calibration=calibration,
    )


def test_opt_125m_on_paper() -> None:
    """int4 in blocks of 128: 123,543,552 weights take 4.25 bits each, 65,632,512 bytes.

    Norms and biases are 4 * (25 * 2 * 768 + 12 * (5 * 768 + 3072)) = 485,376 bytes, the cache of 160 positions
    2 * 12 * 768 * 4 * 160 = 11,796,480: 77,914,368 in all, 3.9 ms at 20 GB/s.
    """
    calibration = Calibration(
        bandwidth_bytes_per_second=20e9, fixed_decode_ms=0.2, measurements=1, source="paper"
    )
    space = opt_125m([INT4], calibration)
    weights = sum(g.shape[0] * g.shape[1] for g in anatomy_of({"model_type": "opt"}).groups)
    assert weights == 123_543_552
    (plan,) = space.uniform().values()
    read = weights * 17 // 32 + 485_376 + 11_796_480
    assert space.decode_ms(plan) == pytest.approx(0.2 + read / 20e9 * 1e3, rel=1e-12)


def test_bits_that_are_read_at_another_speed() -> None:
    calibration = Calibration.model_validate(SLOW)
    # 64 x 256: 2-bit codes 4,096 and scales 64 * 4 * 4 = 1,024 bytes; at half the speed 10,240, rounded up.
    assert read_bytes((64, 256), Format(bits=2, block_size=64), calibration) == 11_000
    assert read_bytes((64, 256), Format(bits=4, block_size=64), calibration) == 8192 + 1024
    # half precision is fp32 in memory
    assert read_bytes((64, 256), Format(bits=16), calibration) == 64 * 256 * 4


def test_the_limit_is_kept_and_used_up(student: Path, tmp_path: Path) -> None:
    fastest, slowest = 25.0, 90.0
    found = {}
    for limit in (fastest, 35.0, 50.0, slowest):
        output = _run(student, tmp_path, calibrated(decode_ms=limit))
        plan = QuantPlan.model_validate_json((output.path / "plan.json").read_bytes())
        assert plan.predicted_decode_ms is not None
        assert plan.predicted_decode_ms <= limit
        found[limit] = plan
        said, error = foreseen(student, tmp_path, calibrated(decode_ms=limit))
        assert error is None
        assert said.best is not None
        assert said.best.decode_ms == pytest.approx(plan.predicted_decode_ms, rel=0.1)
    times = [plan.predicted_decode_ms or 0.0 for plan in found.values()]
    assert times == sorted(times)
    assert times[2] > 40.0
    # 2 bits are as slow to read as 4 here and say less: they are never worth their bytes.
    assert {entry.format.bits for plan in found.values() for entry in plan.groups} <= {4, 8, 32}
    without = _run(student, tmp_path, calibrated(artifact_bytes=10**6))
    free = QuantPlan.model_validate_json((without.path / "plan.json").read_bytes())
    assert (free.predicted_decode_ms or 0.0) > slowest  # negative control: the limit is what held it


def test_limits_that_nothing_keeps_are_named(student: Path, tmp_path: Path) -> None:
    with pytest.raises(BudgetError, match=r"budget\.decode_ms is 5, but the fastest plan .* takes") as caught:
        _run(student, tmp_path, calibrated(decode_ms=5.0))
    needed = float(str(caught.value).split("to at least ")[1].split(",")[0])
    _run(student, tmp_path, calibrated(decode_ms=needed))
    said, error = foreseen(student, tmp_path, calibrated(decode_ms=5.0))
    assert str(error) == str(caught.value) == said.problem
    # 2 bits for the file, 4 for the time: each alone can be kept.
    small = foreseen(student, tmp_path, calibrated(artifact_bytes=10**6))[0].smallest.artifact_bytes
    with pytest.raises(
        BudgetError, match=r"budget\.artifact_bytes \d+ and budget\.decode_ms .* at once"
    ) as both:
        _run(student, tmp_path, calibrated(artifact_bytes=small + 100, decode_ms=needed))
    _run(student, tmp_path, calibrated(artifact_bytes=both.value.smallest_bytes, decode_ms=needed))


def test_what_can_not_be_predicted_is_refused(student: Path, tmp_path: Path) -> None:
    plain = calibrated(decode_ms=50.0).model_dump(mode="json") | {"calibration": None}
    with pytest.raises(SpecError, match=r"decode_ms is 50 and there is no calibration"):
        parse_spec(json.dumps(plain), Target, source="t.yaml", base_folder=tmp_path)
    twice = SLOW | {"by_bits": [{"bits": 4, "bandwidth_bytes_per_second": speed} for speed in (1e6, 2e6)]}
    with pytest.raises(ValidationError, match="bits 4, 4; expected each once"):
        Calibration.model_validate(twice)


def test_the_time_that_is_asked_for_is_that_beside_the_cache_that_is_read_fastest(
    student: Path, tmp_path: Path
) -> None:
    def caches(*cache_bits: int, decode_ms: float = 5.0) -> Target:
        return Target.model_validate(calibrated(decode_ms=decode_ms).model_dump() | {"cache_bits": cache_bits})

    least: dict[tuple[int, ...], float] = {}
    for bits in ((32,), (8,), (32, 8)):
        with pytest.raises(BudgetError, match=r"budget\.decode_ms is 5, but the fastest plan") as caught:
            _run(student, tmp_path, caches(*bits))
        least[bits] = caught.value.smallest_ms
    assert least[8,] < 0.999 * least[32,]
    assert least[32, 8] == least[8,]
    asked = float(caught.value.next_step.split("to at least ")[1].split(",")[0])
    output = _run(student, tmp_path, caches(32, 8, decode_ms=asked))
    plan = QuantPlan.model_validate_json((output.path / "plan.json").read_bytes())
    assert plan.cache_bits == 8
