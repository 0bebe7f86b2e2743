"""The time until the first token: figures on paper, as a limit, and the second copy it may buy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from safetensors.numpy import load_file

from edgeicl.errors import BudgetError, SpecError
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.numerics.size import group_bytes
from edgeicl.quantize.budget import weight_budget
from edgeicl.quantize.possible_plans import plan_space
from edgeicl.quantize.student_weights import read_weights
from edgeicl.specs.format_cost import FormatCost
from edgeicl.specs.quant_plan import BY_ROW, Format, QuantPlan
from edgeicl.specs.target import Budget, Calibration, Target
from tests.unit.quantize.test_forecast import foreseen
from tests.unit.quantize.test_quantize_stage import ALL, _run, _target

INT4 = Format(bits=4, block_size=128)
# int8 by rows reads prompts twice as fast as all others; 2 and 4 bits decode fastest
PROMPT_PS = {2: 2000.0, 4: 1000.0, 8: 1000.0, 32: 4000.0}

INTEGERS = {"integer_attention_ps_per_product": 50.0, "cache_rounding_ps_per_number": 20.0}


def made_up_calibration(formats: list[Format]) -> Calibration:
    return Calibration(
        bandwidth_bytes_per_second=1e12,
        measurements=1,
        source="made up",
        fixed_prompt_ms=0.001,
        activation_ps_per_number=10.0,
        attention_ps_per_product=5.0,
        costs=tuple(
            FormatCost(
                format=f,
                decode_ps_per_weight=10.0 * f.bits,
                prompt_ps_per_weight=500.0 if f.by_row else PROMPT_PS[f.bits],
            )
            for f in formats
        ),
    )


def timed(
    *, copy: bool = True, whole_ps: float | None = None, integers: dict[str, float] | None = None, **budget: Any
) -> Target:
    """`whole_ps`: of attention's products where all scores are computed at once; in tiles they take 5.

    `integers`: that the cache may hold, and what is known of their costs.
    """
    plain = _target(ALL, artifact_bytes=10**6)
    known = made_up_calibration([*plain.formats, BY_ROW]).model_dump()
    return Target.model_validate(
        plain.model_dump()
        | {
            "budget": {"artifact_bytes": 10**6, **budget},
            "calibration": known | {"whole_attention_ps_per_product": whole_ps} | (integers or {}),
            "cache_bits": (32,) if integers is None else (32, 8),
            "prompt_tokens": 10,
            "prompt_format": BY_ROW.model_dump() if copy else None,
        }
    )


def plan_of(student: Path, store: Path, target: Target, **settings: Any) -> QuantPlan:
    output = _run(student, store, target, **settings)
    return QuantPlan.model_validate_json((output.path / "plan.json").read_bytes())


def test_opt_125m_on_paper() -> None:
    """128 tokens, one format of 10 ps a weight and token and 20 ps a weight of one token.

    A layer has 12 * 768² = 7,077,888 weights; all 12 but for 9 * 768² of the last one are read by 128 tokens:
    79,626,240, 101,921.6 us. Those, and the head of 50,272 rows, by one: 43,917,312, 878.3 us. Numbers of a
    layer: 3 * 768 + 768 + 2 * 768 + 2 * (768 + 3072) = 12,288; of 12 and 128 tokens 18,874,368, 188.7 us at
    10 ps. Attention: 2 * 12 * 768 * 128² = 301,989,888 products, 1,509.9 us at 5 ps. And 1 us.
    """
    anatomy = anatomy_of({"model_type": "opt"})
    target = _target(ALL, artifact_bytes=10**9)
    budget, _ = weight_budget(target, anatomy, tokenizer_bytes=0, task_bytes=0)
    cost = FormatCost(format=INT4, decode_ps_per_weight=20.0, prompt_ps_per_weight=10.0)
    calibration = made_up_calibration([]).model_copy(update={"costs": (cost,)})
    space = plan_space(anatomy, [INT4], budget, by_block=False, calibration=calibration, prompt_tokens=128)
    (plan,) = space.uniform().values()
    expected = 101.9215872 + 0.87834624 + 0.18874368 + 1.50994944 + 0.001
    assert space.first_token_ms(plan) == pytest.approx(expected, rel=1e-6)
    calibration = calibration.model_copy(update={"whole_attention_ps_per_product": 2.0})
    told = {"prompt_tokens": 128, "first_token_limit_ms": 1e3, "score_bytes": 1000}
    space = plan_space(anatomy, [INT4], budget, by_block=False, calibration=calibration, **told)
    (whole,) = space.others
    assert space.first_token_ms(plan) == pytest.approx(expected, rel=1e-6)
    assert whole.first_token_ms(plan) == pytest.approx(expected - 1.50994944 * 3 / 5, rel=1e-6)
    assert whole.budget.resident_bytes(0) - space.budget.resident_bytes(0) == 1000
    tight = replace(whole, budget=replace(whole.budget, resident_limit_bytes=1))
    with pytest.raises(BudgetError, match="scores of attention 1000"):
        tight.require(plan, what="it")
    nodes = calibration.model_copy(update={"fixed_layers": 6})  # half of what this model has
    twice = plan_space(anatomy, [INT4], budget, by_block=False, calibration=nodes, prompt_tokens=128)
    assert twice.first_token_ms(plan) == pytest.approx(expected + 0.001, rel=1e-6)
    # all that a head of the labels alone does is to read prompts
    told = {"prompt_tokens": 128, "score_bytes": 1000, "calibration": calibration}
    assert not plan_space(anatomy, [INT4], budget, by_block=False, **told).others
    labels = plan_space(anatomy, [INT4], budget, by_block=False, label_head=True, **told)
    losses = {name: dict.fromkeys(sizes, 0.0) for name, sizes in labels.stored.items()}
    assert labels.chosen(losses)[0].prompt_attention == "whole"
    other = plan_space(
        anatomy,
        [Format(bits=8, block_size=32)],
        budget,
        by_block=False,
        calibration=calibration,
        prompt_tokens=128,
    )
    assert other.first is None  # its cost was not measured


def test_the_limit_is_kept(student: Path, tmp_path: Path) -> None:
    free = plan_of(student, tmp_path, timed(copy=False))
    times = []
    for share in (0.9, 0.6, 0.35):
        limit = share * (free.predicted_first_token_ms or 0.0)
        plan = plan_of(student, tmp_path, timed(copy=False, first_token_ms=limit))
        assert plan.prompt_format is None
        times.append(plan.predicted_first_token_ms or 0.0)
        assert times[-1] <= limit
        said, _ = foreseen(student, tmp_path, timed(copy=False, first_token_ms=limit))
        assert said.best is not None
        assert said.best.first_token_ms == pytest.approx(times[-1], rel=0.1)
    assert times[0] > times[1] > times[2]


def test_whole_attention_where_it_is_faster_and_asked_for(student: Path, tmp_path: Path) -> None:
    def attention(**told: Any) -> str:
        return plan_of(student, tmp_path, timed(copy=False, **told)).prompt_attention

    assert attention(whole_ps=1.0, first_token_ms=1000.0) == "whole"
    assert attention(whole_ps=1.0) == "tiled"  # decoding comes first
    assert attention(whole_ps=4.5, first_token_ms=1000.0) == "whole"
    for about_as_fast in (5.0, 4.6, 0.0):  # the last is no measurement
        assert attention(whole_ps=about_as_fast, first_token_ms=1000.0) == "tiled"
    assert attention(first_token_ms=1000.0) == "tiled"
    target = timed(copy=False, whole_ps=1.0).model_dump() | {"provider": "cuda", "instruction_features": []}
    target["budget"]["first_token_ms"] = 1000.0
    assert plan_of(student, tmp_path, Target.model_validate(target)).prompt_attention == "tiled"


def test_scores_of_whole_attention_are_in_the_budget(student: Path, tmp_path: Path) -> None:
    """The student has 4 heads, the target a context of 16 tokens: 4 * 4 * 16² bytes."""
    tiled = plan_of(student, tmp_path, timed(copy=False, first_token_ms=1000.0))
    limits = {"first_token_ms": 1000.0, "resident_bytes": tiled.predicted_resident_bytes}
    both = timed(copy=False, whole_ps=1.0, first_token_ms=1000.0)
    whole = plan_of(student, tmp_path, both)
    assert whole.prompt_attention == "whole"
    assert whole.groups == tiled.groups
    assert whole.predicted_resident_bytes - tiled.predicted_resident_bytes == 4 * 4 * 16**2
    # weights that lose less are worth more than the time
    tight = plan_of(student, tmp_path, timed(copy=False, whole_ps=1.0, **limits))
    assert (tight.prompt_attention, tight.groups) == ("tiled", tiled.groups)
    said, _ = foreseen(student, tmp_path, both)
    assert said.best is not None
    assert said.best.resident_bytes == pytest.approx(whole.predicted_resident_bytes, rel=0.05)
    assert said.attention_score_bytes == 4 * 4 * 16**2
    before, _ = foreseen(student, tmp_path, timed(copy=False, first_token_ms=1000.0))
    assert said.uniform[0].resident_bytes - before.uniform[0].resident_bytes == 4 * 4 * 16**2
    assert said.smallest.resident_bytes == before.smallest.resident_bytes
    assert (said.smallest.first_token_ms or 0.0) < (before.smallest.first_token_ms or 0.0)


def test_scores_are_of_the_positions_that_there_are(student: Path, tmp_path: Path) -> None:
    """The student has 40 positions and 4 heads, whatever the target has room for."""
    asked = timed(copy=False, whole_ps=1.0, first_token_ms=1000.0, artifact_bytes=None)
    found, _ = foreseen(student, tmp_path, asked.model_copy(update={"context_tokens": 1000}))
    assert found.attention_score_bytes == 4 * 4 * 40**2


def test_whole_attention_beside_a_copy(student: Path, tmp_path: Path) -> None:
    fastest = 0.26 * (plan_of(student, tmp_path, timed()).predicted_first_token_ms or 0.0)
    target = timed(whole_ps=1.0, first_token_ms=fastest)
    output = _run(student, tmp_path, target)
    plan = QuantPlan.model_validate_json((output.path / "plan.json").read_bytes())
    assert (plan.prompt_format, plan.prompt_attention) == (BY_ROW, "whole")
    assert plan_of(student, tmp_path, target, plan=str(output.path / "plan.json")) == plan
    edited = tmp_path / "edited.json"
    edited.write_text(plan.model_copy(update={"prompt_attention": "tiled"}).model_dump_json())
    slower = timed(whole_ps=1.0, first_token_ms=2 * fastest)
    assert plan_of(student, tmp_path, slower, plan=str(edited)).prompt_attention == "tiled"
    edited.write_text(plan.model_dump_json())
    assert plan_of(student, tmp_path, slower, plan=str(edited)).prompt_attention == "whole"
    with pytest.raises(SpecError, match=r"prompt_attention +found whole"):
        _run(student, tmp_path, timed(first_token_ms=fastest), plan=str(output.path / "plan.json"))
    halves = {"cache_bits": 16, "activation_bits": 16}
    with pytest.raises(ValidationError, match="prompt_attention is whole with"):
        QuantPlan.model_validate(plan.model_dump() | {"prompt_format": None, **halves})
    with pytest.raises(ValidationError, match="prompt_format with activations in fp16"):
        QuantPlan.model_validate(plan.model_dump() | halves)


def test_a_second_copy_is_bought_by_the_limit_alone(student: Path, tmp_path: Path) -> None:
    """Not without a limit, nor where plans without it are as good; then its bytes are counted to the last."""
    fastest = 0.26 * (plan_of(student, tmp_path, timed()).predicted_first_token_ms or 0.0)
    assert plan_of(student, tmp_path, timed()).prompt_format is None
    assert plan_of(student, tmp_path, timed(first_token_ms=1000.0)).prompt_format is None
    target = timed(first_token_ms=fastest)
    output = _run(student, tmp_path, target)
    plan = QuantPlan.model_validate_json((output.path / "plan.json").read_bytes())
    assert plan.prompt_format == BY_ROW
    assert (plan.predicted_first_token_ms or 0.0) <= fastest
    assert plan.prompt_loss is not None
    assert 0 < plan.prompt_loss < 1e-2
    groups = read_weights(student).groups
    copied = sum(group_bytes(*group.shape, BY_ROW) for group in groups if group.layer is not None)
    stored = sum(group_bytes(*group.shape, plan.formats()[group.name]) for group in groups)
    tensors = load_file(output.path / "weights.safetensors")
    assert sum(values.nbytes for name, values in tensors.items() if name.startswith("prompt.")) == copied
    without = plan_of(student, tmp_path, timed(copy=False, artifact_bytes=10**6))
    bytes_without = sum(group_bytes(*group.shape, without.formats()[group.name]) for group in groups)
    assert plan.predicted_weight_bytes - without.predicted_weight_bytes == stored + copied - bytes_without
    said, error = foreseen(student, tmp_path, target)
    assert error is None
    assert said.prompt_copy_bytes == copied
    # less can be had by the copy alone; without it the limit is named
    with pytest.raises(BudgetError, match=r"budget\.first_token_ms"):
        _run(student, tmp_path, timed(copy=False, first_token_ms=0.6 * fastest))


def test_two_times_that_no_plan_keeps_at_once(student: Path, tmp_path: Path) -> None:
    """2 bits decode fastest and read prompts slower than 4 and 8: the least of each is another plan's."""
    fastest = foreseen(student, tmp_path, timed(copy=False))[0].smallest
    assert fastest.decode_ms is not None
    assert fastest.first_token_ms is not None
    times = {"decode_ms": 1.01 * fastest.decode_ms, "first_token_ms": 1.01 * fastest.first_token_ms}
    for key, limit in times.items():
        _run(student, tmp_path, timed(copy=False, artifact_bytes=None, **{key: limit}))
    with pytest.raises(
        BudgetError, match=r"no plan keeps budget\.decode_ms .* and budget\.first_token_ms .* at once"
    ):
        _run(student, tmp_path, timed(copy=False, artifact_bytes=None, **times))


def test_a_plan_of_ones_own_says_whether_there_is_a_copy(student: Path, tmp_path: Path) -> None:
    limit = 0.26 * (plan_of(student, tmp_path, timed()).predicted_first_token_ms or 0.0)
    output = _run(student, tmp_path, timed(first_token_ms=limit))
    again = plan_of(student, tmp_path, timed(first_token_ms=limit), plan=str(output.path / "plan.json"))
    assert again == QuantPlan.model_validate_json((output.path / "plan.json").read_bytes())
    with pytest.raises(
        SpecError, match=r"(?s)line \d+ +prompt_format.*next: give the limits that the plan was made with"
    ):
        _run(student, tmp_path, timed(copy=False), plan=str(output.path / "plan.json"))


def test_what_can_not_be_predicted_is_refused() -> None:
    known = timed(first_token_ms=10.0).model_dump()
    costs = known["calibration"]["costs"]
    with pytest.raises(ValidationError, match="costs lacks int2"):
        Target.model_validate(known | {"calibration": known["calibration"] | {"costs": costs[1:]}})
    with pytest.raises(ValidationError, match="expected 8 bits with block_size row"):
        Target.model_validate(known | {"prompt_format": INT4.model_dump()})
    with pytest.raises(ValidationError, match="each once"):
        Calibration.model_validate(known["calibration"] | {"costs": [costs[0], costs[0]]})
    with pytest.raises(
        ValidationError, match="cache_bits 8 alone, and calibration has no integer_attention_ps"
    ):
        Target.model_validate(known | {"cache_bits": [8]})
    Target.model_validate(known | {"cache_bits": [8], "calibration": known["calibration"] | INTEGERS})
    assert Budget(first_token_ms=3.0).decode_ms is None
    with pytest.raises(ValidationError, match="no budget given"):
        Budget()


def test_the_time_that_is_asked_for_is_that_of_a_plan_with_the_copy(student: Path, tmp_path: Path) -> None:
    def error(**settings: Any) -> BudgetError:
        with pytest.raises(BudgetError, match=r"budget\.first_token_ms is 0\.0001") as caught:
            _run(student, tmp_path, timed(first_token_ms=1e-4, **settings))
        return caught.value

    with_copy, without = error(), error(copy=False)
    assert "with a second copy in int8/row takes" in str(with_copy)
    assert "set its prompt_format" not in with_copy.next_step
    assert "set its prompt_format" in without.next_step
    assert 0.0 < with_copy.smallest_ms < 0.8 * without.smallest_ms
    asked = float(with_copy.next_step.split("to at least ")[1].split(",")[0])
    assert plan_of(student, tmp_path, timed(first_token_ms=asked)).prompt_format == BY_ROW
    # a copy that the file has no room for is none: told is the time of the one plan that is so small
    room = foreseen(student, tmp_path, timed())[0].smallest.artifact_bytes
    tight = error(artifact_bytes=room)
    assert "plan of its formats that keeps the other limits takes" in str(tight)
    assert tight.smallest_ms > without.smallest_ms
    assert "set its prompt_format" not in tight.next_step
    asked = float(tight.next_step.split("to at least ")[1].split(",")[0])
    assert plan_of(student, tmp_path, timed(first_token_ms=asked, artifact_bytes=room)).prompt_format is None


def test_a_prompt_longer_than_the_context_is_a_deviation(student: Path, tmp_path: Path) -> None:
    def said(prompt_tokens: int | None) -> tuple[int | None, list[tuple[str, str, str]]]:
        asked = Target.model_validate(timed().model_dump() | {"prompt_tokens": prompt_tokens})
        found, _ = foreseen(student, tmp_path, asked)
        return found.prompt_tokens, [(entry.what, entry.asked, entry.got) for entry in found.deviations]

    assert said(17) == (16, [("prompt_tokens", "17", "16")])
    assert said(16) == said(None) == (16, [])


def test_integers_in_the_cache_are_left_out_where_a_prompts_time_is_limited(
    student: Path, tmp_path: Path
) -> None:
    """What they add to it was never measured."""
    asked = Target.model_validate(timed(first_token_ms=1000.0).model_dump() | {"cache_bits": [32, 8]})
    found, _ = foreseen(student, tmp_path, asked)
    assert [(entry.what, entry.asked, entry.got) for entry in found.deviations] == [
        ("cache_bits", "32, 8", "32")
    ]
    unlimited = Target.model_validate(timed().model_dump() | {"cache_bits": [32, 8]})
    assert foreseen(student, tmp_path, unlimited)[0].deviations == ()
