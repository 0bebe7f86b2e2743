"""The time until the first token beside a cache of 8-bit integers: read by attention, or made after it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from edgeicl.errors import BudgetError, SpecError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.quantize.budget import weight_budget
from edgeicl.quantize.plan_space import PlanSpace
from edgeicl.quantize.possible_plans import plan_space
from edgeicl.quantize.stage_inputs import sized
from edgeicl.specs.format_cost import FormatCost
from edgeicl.specs.quant_plan import BY_ROW, Format, QuantPlan
from edgeicl.specs.target import Budget, Calibration
from tests.unit.quantize.test_cache import CACHE_8, CACHE_32, SCALES
from tests.unit.quantize.test_first_token import INT4, INTEGERS, made_up_calibration, plan_of, timed
from tests.unit.quantize.test_quantize_stage import ALL, _recipe, _run, _target


def test_prompts_beside_integers_on_paper() -> None:
    """Attention as above. Rounded are 768 keys and values of 12 layers and 128 tokens: 2,359,296 numbers."""
    anatomy, target = anatomy_of({"model_type": "opt"}), _target(ALL, artifact_bytes=10**9)
    budget, _ = weight_budget(target, anatomy, tokenizer_bytes=0, task_bytes=0, cache_bits=8)
    costs = tuple(
        FormatCost(format=f, decode_ps_per_weight=20.0, prompt_ps_per_weight=10.0) for f in (INT4, BY_ROW)
    )
    known = made_up_calibration([]).model_copy(
        update={"costs": costs, "whole_attention_ps_per_product": 2.0, **INTEGERS}
    )
    told: dict[str, Any] = {"prompt_tokens": 128, "first_token_limit_ms": 1e3, "score_bytes": 1000}

    def spaces(calibration: Calibration) -> tuple[PlanSpace, ...]:
        return plan_space(
            anatomy,
            [INT4],
            budget,
            by_block=False,
            calibration=calibration,
            prompt_format=BY_ROW,
            cache_bits=8,
            rounded_bytes=500,
            **told,
        ).alternatives

    tiled, whole, rounded = 1.50994944, 0.60397978, 0.04718592
    expected = {
        (None, "tiled"): 10 * tiled,
        (BY_ROW, "tiled"): tiled + rounded,
        (BY_ROW, "whole"): whole + rounded,
    }
    rest = 101.9215872 + 0.87834624 + 0.18874368 + 0.001
    found = spaces(known)
    (plan,) = found[0].uniform().values()
    assert {(s.prompt_format, s.prompt_attention): s.first_token_ms(plan) for s in found} == {
        way: pytest.approx(rest + ms, rel=1e-6) for way, ms in expected.items()
    }
    files = [space.budget.other_file_bytes - budget.other_file_bytes for space in found]
    assert files == [0, 12 * (9216 + 3072), 12 * (9216 + 3072)]
    resident = [space.budget.resident_bytes(0) - budget.resident_bytes(0) for space in found]
    copied = resident[1] - 500
    assert resident == [0, copied + 500, copied + 500 + 1000]
    unknown = known.model_copy(update=dict.fromkeys(INTEGERS))
    assert [space.first for space in spaces(unknown)] == [None] * 3
    # whole attention without a copy is for those who decode nothing: it puts a branch in every layer
    labels = plan_space(
        anatomy, [INT4], budget, by_block=False, label_head=True, calibration=known, cache_bits=8, **told
    )
    (whole_of_labels,) = labels.others
    assert whole_of_labels.first is not None
    assert whole_of_labels.first.rest_ms == pytest.approx(0.18874368 + 0.001 + whole + rounded, rel=1e-6)
    assert whole_of_labels.budget.other_file_bytes - budget.other_file_bytes == 12 * 3072


def test_a_cache_of_integers_beside_a_limit(student: Path, tmp_path: Path) -> None:
    """Where its costs are known; with a copy of the layers prompts meet keys and values as they are."""
    plain = {"formats": (Format(bits=32),)}
    known, unknown = (timed(integers=each, copy=False).model_copy(update=plain) for each in (INTEGERS, {}))
    free = plan_of(student, tmp_path, known)
    assert (free.cache_bits, free.prompt_format) == (32, None)
    bytes_less = CACHE_32 - CACHE_8 - SCALES
    limits = {"resident_bytes": free.predicted_resident_bytes - bytes_less, "first_token_ms": 1000.0}
    tight = known.model_copy(update={"budget": Budget(**limits)})
    assert plan_of(student, tmp_path, tight).cache_bits == 8
    with pytest.raises(BudgetError, match="resident_bytes"):
        plan_of(student, tmp_path, unknown.model_copy(update={"budget": Budget(**limits)}))
    roomy = unknown.model_copy(update={"budget": Budget(first_token_ms=1000.0)})
    output = _run(student, tmp_path, roomy)
    assert "which the calibration doesn't have" in (output.path / "deviations.json").read_text()
    # the copy is the fastest way by far, and integers in the cache are what is left to save in decoding
    fastest = Budget(first_token_ms=0.2 * (free.predicted_first_token_ms or 0.0))
    copied = known.model_copy(update={"prompt_format": BY_ROW, "budget": fastest})
    before = plan_of(student, tmp_path, copied)
    assert (before.cache_bits, before.prompt_format) == (32, BY_ROW)
    less_ms = 1e3 * bytes_less / 2 / known.calibration.bandwidth_bytes_per_second
    limit = fastest.model_copy(update={"decode_ms": before.predicted_decode_ms - less_ms})
    output = _run(student, tmp_path, copied.model_copy(update={"budget": limit}))
    plan = QuantPlan.model_validate_json((output.path / "plan.json").read_bytes())
    assert (plan.cache_bits, plan.prompt_format, plan.rounds_after_prompts) == (8, BY_ROW, True)
    assert (plan.predicted_first_token_ms or 0.0) <= (limit.first_token_ms or 0.0)
    stored = load_file(output.path / "weights.safetensors")
    assert {"layers.0.attention.key_scales", "prompt.layers.0.attention.qkv.codes"} <= {*stored}


def test_behind_a_prefix_attention_reads_integers(student: Path) -> None:
    target = timed(integers=INTEGERS, whole_ps=1.0, first_token_ms=1000.0)
    told = {"student": student, "prefix_ids": False}
    before, _ = sized(_recipe(), target, prefix_tokens=(), **told)
    assert {bits: len(space.alternatives) for bits, space in before.items()} == {32: 4, 8: 3}
    behind, _ = sized(_recipe(), target, prefix_tokens=(3,), **told)
    assert {bits: len(space.alternatives) for bits, space in behind.items()} == {32: 4, 8: 1}


def test_a_plan_whose_cache_was_left_out_is_refused(student: Path, tmp_path: Path) -> None:
    """Of a calibration that doesn't know integers, beside a limit of the first token."""
    target = timed(integers={}, copy=False, first_token_ms=1000.0)
    made = plan_of(student, tmp_path, target)
    path = tmp_path / "plan.json"
    path.write_text(made.model_copy(update={"cache_bits": 8}).model_dump_json())
    with pytest.raises(SpecError, match=r"cache_bits +8 bits; expected cache_bits of the target: 32 \(not 8: "):
        plan_of(student, tmp_path, target, plan=str(path))
