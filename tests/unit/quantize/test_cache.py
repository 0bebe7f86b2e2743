"""Bits of the key/value cache: what rounding costs, and how they are chosen together with weights' formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from edgeicl.errors import BudgetError, SpecError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.model_folder import model_config
from edgeicl.numerics.cache_rounding import cache_codes, read_back
from edgeicl.numerics.size import cache_scale_bytes, group_bytes, held_bytes_on_gpu, kv_cache_bytes
from edgeicl.quantize.cache import HEADROOM, RoundedCache, measured_scales
from edgeicl.quantize.cache_choice import Choice, best_choice, candidates
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.forecast import typical_cache_error
from edgeicl.quantize.plan_loss import PlanLoss
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.stage_inputs import sized
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.quant_plan import Format, QuantPlan
from edgeicl.specs.target import Target
from edgeicl.store import StageOutput
from tests.unit.quantize.test_forecast import foreseen
from tests.unit.quantize.test_quantize_stage import ALL, _recipe, _run, _target
from tests.unit.quantize.tiny_student import SEQUENCES

LAYERS, WIDTH, CONTEXT = 2, 32, 16
CACHE_32 = kv_cache_bytes(LAYERS, WIDTH, CONTEXT)
CACHE_8 = kv_cache_bytes(LAYERS, WIDTH, CONTEXT, bits=8)
SCALES = cache_scale_bytes(LAYERS, WIDTH, bits=8)


def target(resident_bytes: int, *cache_bits: int, **changes: Any) -> Target:
    plain = _target(ALL, resident_bytes=resident_bytes).model_dump(mode="json")
    return Target.model_validate({**plain, "cache_bits": cache_bits or (32, 8), **changes})


def plan_of(output: StageOutput) -> QuantPlan:
    return QuantPlan.model_validate_json((output.path / "plan.json").read_bytes())


def test_bytes_on_paper() -> None:
    assert (CACHE_32, CACHE_8, SCALES) == (2 * 2 * 32 * 4 * 16, 2 * 2 * 32 * 16, 2 * 2 * 32 * 4)
    assert kv_cache_bytes(LAYERS, WIDTH, CONTEXT, bits=16) == CACHE_32 // 2
    assert cache_scale_bytes(LAYERS, WIDTH, bits=16) == 0
    int4 = Format(bits=4, block_size=32)
    assert group_bytes(4, 64, int4, scale_bytes=2) == 128 + 4 * 2 * 2
    assert held_bytes_on_gpu(4, 64, int4, scale_bytes=2, looked_up=True) == 2 * (128 + 16)


def test_scales_hold_what_was_seen_and_torch_rounds_as_numpy(weights: StudentWeights) -> None:
    decoder = CalibratedDecoder(weights, SEQUENCES)
    scales = measured_scales(decoder)
    assert scales.shape == (LAYERS, 2, 4, 8)
    seen: list[torch.Tensor] = []

    def look(layer: int, rows: torch.Tensor) -> torch.Tensor:
        seen.append(rows)
        return rows

    decoder.layer(1, decoder.layer_inputs()[1], cache=look)
    rows, flat = seen[0].numpy(), scales[1].reshape(-1)
    largest = np.abs(cache_codes(rows, flat).astype(int)).max(axis=0)
    assert np.abs(largest - 127 / HEADROOM).max() <= 1
    np.testing.assert_array_equal(
        RoundedCache(8, scales)(1, seen[0]).numpy(), read_back(cache_codes(rows, flat), flat)
    )
    np.testing.assert_array_equal(
        RoundedCache(16)(1, seen[0]).numpy(), rows.astype(np.float16).astype(np.float32)
    )


def test_a_coarser_cache_loses_more(weights: StudentWeights) -> None:
    decoder = CalibratedDecoder(weights, SEQUENCES)
    sensitivity, scales = Sensitivity(decoder), measured_scales(decoder)
    losses = [
        sensitivity.loss({}, cache)
        for cache in (RoundedCache(32), RoundedCache(16), RoundedCache(8, scales), RoundedCache(8, scales * 16))
    ]
    assert abs(losses[0]) < 1e-12
    assert losses[0] < losses[1] < losses[2] < losses[3]
    fp32 = dict.fromkeys((group.name for group in weights.groups), Format(bits=32))
    of_plan = PlanLoss("rtn", weights, decoder, sensitivity, RoundedCache(8, scales))(fp32)
    assert of_plan == pytest.approx(losses[2], rel=1e-6)
    assert 0 == typical_cache_error(16) < typical_cache_error(8) < 1e-3


def test_a_cache_of_integers_makes_room_to_the_byte(student: Path, tmp_path: Path) -> None:
    """With room for all there is no reason for it."""
    fp32 = [{"bits": 32}]
    roomy = plan_of(_run(student, tmp_path, target(1_000_000, formats=fp32)))
    assert roomy.cache_bits == 32
    limit = roomy.predicted_resident_bytes - (CACHE_32 - CACHE_8 - SCALES)
    tight = _run(student, tmp_path, target(limit, formats=fp32))
    plan = plan_of(tight)
    assert (plan.cache_bits, plan.predicted_resident_bytes) == (8, limit)
    assert plan.predicted_weight_bytes == roomy.predicted_weight_bytes + SCALES
    stored = load_file(tight.path / "weights.safetensors")
    assert sum(values.nbytes for name, values in stored.items() if name.endswith("_scales")) == SCALES
    assert measured(tight) > 0  # of the cache alone
    with pytest.raises(BudgetError, match=rf"takes {limit} bytes"):
        _run(student, tmp_path, target(limit - 1, formats=fp32))


def measured(output: StageOutput) -> float:
    points = json.loads((output.path / "curve.json").read_text())["points"]
    (loss,) = [point["measured_loss"] for point in points if point["kind"] == "chosen"]
    return float(loss)


@pytest.mark.parametrize(("limit", "bits"), [(52_000, 8), (120_000, 32)])
def test_the_cache_is_taken_with_which_the_whole_loses_least(
    limit: int, bits: int, student: Path, tmp_path: Path
) -> None:
    losses = {each: measured(_run(student, tmp_path, target(limit, each))) for each in (32, 8)}
    both = _run(student, tmp_path, target(limit))
    assert plan_of(both).cache_bits == min(losses, key=lambda each: losses[each]) == bits
    assert measured(both) == min(losses.values())
    assert losses[32] != losses[8]


def test_a_choice_is_measured_and_only_where_there_is_one(student: Path) -> None:
    target_ = target(125_000)
    spaces, _ = sized(_recipe(), target_, student=student, prefix_tokens=(), prefix_ids=False)
    assert list(spaces) == [32, 8]
    losses = {group: {f: 1.0 / f.bits for f in by_format} for group, by_format in spaces[32].stored.items()}
    both = candidates(spaces, losses)
    assert [choice.cache_bits for choice in both] == [32, 8]
    assert best_choice(both, lambda choice: choice.cache_bits).cache_bits == 8
    assert best_choice(both, lambda choice: 1.0).cache_bits == 32
    assert best_choice(both[:1], lambda choice: pytest.fail("measured")) == both[0]
    free, _ = sized(_recipe(), target(1_000_000), student=student, prefix_tokens=(), prefix_ids=False)
    assert [choice.cache_bits for choice in candidates(free, losses)] == [32]
    none, _ = sized(_recipe(), target(1_000), student=student, prefix_tokens=(), prefix_ids=False)
    with pytest.raises(BudgetError) as caught:
        candidates(none, losses)
    least = caught.value.smallest_bytes
    enough, _ = sized(_recipe(), target(least), student=student, prefix_tokens=(), prefix_ids=False)
    (found,) = candidates(enough, losses)
    assert isinstance(found, Choice)
    assert found.cache_bits == 8


def test_what_is_foreseen_counts_every_cache(student: Path, tmp_path: Path) -> None:
    found, _ = foreseen(student, tmp_path, target(1_000_000))
    alone = {bits: foreseen(student, tmp_path, target(1_000_000, bits))[0] for bits in (32, 8)}
    assert (found.cache_bits, found.kv_cache_bytes) == (32, CACHE_32)
    assert found.smallest.resident_bytes == alone[8].smallest.resident_bytes
    assert found.smallest.resident_bytes == alone[32].smallest.resident_bytes - (CACHE_32 - CACHE_8 - SCALES)
    assert found.largest.resident_bytes == alone[32].largest.resident_bytes
    assert found.smallest.artifact_bytes == alone[32].smallest.artifact_bytes
    assert found.best is not None
    assert (found.best.cache_bits, found.smallest.cache_bits, found.largest.cache_bits) == (32, None, None)
    assert {size.cache_bits for size in found.uniform} == {32}
    assert alone[8].smallest.cache_bits == 8
    nothing, error = foreseen(student, tmp_path, target(1_000))
    assert error is not None
    assert error.smallest_bytes == found.smallest.resident_bytes
    assert nothing.best is None


def test_a_plan_can_be_edited_and_fed_back(student: Path, tmp_path: Path) -> None:
    made = plan_of(_run(student, tmp_path, target(1_000_000)))
    path = tmp_path / "plan.json"
    path.write_text(made.model_copy(update={"cache_bits": 8}).model_dump_json())
    found = plan_of(_run(student, tmp_path, target(1_000_000), plan=str(path)))
    assert (found.cache_bits, found.formats()) == (8, made.formats())
    path.write_text(made.model_copy(update={"cache_bits": 16, "activation_bits": 16}).model_dump_json())
    with pytest.raises(
        SpecError, match=r"cache_bits +16 bits; expected cache_bits of the target: 32, 8"
    ) as caught:
        _run(student, tmp_path, target(1_000_000), plan=str(path))
    assert "16 bits; expected activation_bits of the target: 32" in str(caught.value)


def test_half_precision_halves_what_is_beside_the_codes(student: Path, tmp_path: Path) -> None:
    formats = [f for f in ALL if f["bits"] != 32]
    output = _run(
        student, tmp_path, target(1_000_000, 16, formats=formats, activation_bits=16, provider="cuda")
    )
    plan, anatomy = plan_of(output), anatomy_of(model_config(student))
    assert (plan.cache_bits, plan.activation_bits) == (16, 16)
    groups = sum(group_bytes(*g.shape, plan.formats()[g.name], scale_bytes=2) for g in anatomy.groups)
    assert plan.predicted_weight_bytes == groups + anatomy.fixed_tensor_bytes // 2
    stored = load_file(output.path / "weights.safetensors")
    assert {values.dtype for values in stored.values()} == {np.dtype(np.uint8), np.dtype(np.float16)}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"cache_bits": [16]}, "cache_bits 16 beside activation_bits 32; expected 32, 8, or both"),
        ({"activation_bits": 16, "cache_bits": [16]}, "formats of 32 bits beside activation_bits 16"),
        ({"cache_bits": [8, 8]}, "cache_bits 8, 8; expected each once"),
        ({"cache_bits": []}, "at least 1 item"),
    ],
)
def test_a_target_that_mixes_numbers_is_refused(changes: dict[str, Any], told: str) -> None:
    plain = _target(ALL, resident_bytes=1).model_dump(mode="json")
    with pytest.raises(ValueError, match=told):
        Target.model_validate({**plain, **changes})
