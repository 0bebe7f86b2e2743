"""Predictions of an artifact: which method, on paper, as the planner says it, and through the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import edgeicl.bench.prediction.predict as predict_module
from edgeicl.bench.artifact import open_artifact
from edgeicl.bench.prediction.holdout import hold_out
from edgeicl.bench.prediction.predict import decode_ms, known_targets, method_for, predict
from edgeicl.errors import BenchError
from edgeicl.specs.catalog import load_target
from edgeicl.specs.format_cost import FormatCost
from edgeicl.specs.loading import dump_yaml
from edgeicl.specs.quant_plan import Format
from edgeicl.specs.target import BitsBandwidth, Calibration, Target
from edgeicl.store import digest_of
from tests.unit.test_cli import exit_code

Make = Callable[..., Path]
INT8 = Format(bits=8, block_size=32)


def target(**update: object) -> Target:
    return load_target("android-flagship-2024").model_copy(update=update)


def calibration(**more: object) -> Calibration:
    return Calibration.model_validate(
        {
            "bandwidth_bytes_per_second": 1e9,
            "fixed_decode_ms": 0.5,
            "measurements": 1,
            "source": "a test",
            **more,
        }
    )


def test_the_best_method_that_the_facts_allow() -> None:
    cost = FormatCost(format=INT8, decode_ps_per_weight=1.0, prompt_ps_per_weight=1.0)
    assert method_for(target(calibration=calibration(costs=(cost,)))) == "probe"
    assert method_for(target()) == "published"
    assert method_for(target(calibration=None)) == "specification"
    with pytest.raises(BenchError, match="nothing is known of the speed"):
        method_for(target(calibration=None, memory_bandwidth_bytes_per_second=None))
    with pytest.raises(BenchError, match="is for cuda: only CPUs"):
        method_for(load_target("cuda"))


def test_a_token_on_paper(make_artifact: Make) -> None:
    """0.5 ms, and bytes at 1 GB/s: weights of the ledger, and a cache of 2 layers, 2 kinds, 32 fp32 numbers."""
    opened = open_artifact(make_artifact())
    found = decode_ms(opened, target(calibration=calibration()), "published", 10)
    nodes = calibration(fixed_layers=8)  # of which the artifact has two
    assert decode_ms(opened, target(calibration=nodes), "published", 10) == pytest.approx(
        found - 0.375, rel=1e-9
    )
    assert found == pytest.approx(0.5 + (opened.weight_bytes_per_token + 2 * 2 * 32 * 4 * 10) * 1e-6, rel=1e-9)
    half = calibration(by_bits=(BitsBandwidth(bits=8, bandwidth_bytes_per_second=0.5e9),))
    slower = decode_ms(opened, target(calibration=half), "published", 10)
    # 8-bit weights count twice: two layers of 4 * 32 * 32 and 2 * 32 * 64, and a head of 40 * 32, with scales.
    weights = 2 * (4 * 32 * 32 + 2 * 32 * 64) + 40 * 32
    assert (slower - found) * 1e6 == pytest.approx(weights * (1 + 4 / 32), abs=9 * 1000)


def test_what_a_probe_measured_is_all_that_counts(make_artifact: Make) -> None:
    cost = FormatCost(format=INT8, decode_ps_per_weight=1000.0, prompt_ps_per_weight=100.0)
    probed = target(calibration=calibration(costs=(cost,), fixed_prompt_ms=2.0))
    found = predict(make_artifact(), probed, prompt_tokens=4, depth_tokens=10)
    assert found.method == "probe"
    assert found.hold_out is None
    assert found.first_token_ms is not None
    # 4 tokens meet the first layer and queries, keys, values of the second; one token meets the rest.
    many = (4 * 32 * 32 + 2 * 32 * 64) + 3 * 32 * 32
    one = (32 * 32 + 2 * 32 * 64) + 40 * 32
    assert found.first_token_ms.value == pytest.approx(2.0 + (many * 4 * 100 + one * 1000) * 1e-9, rel=0.01)


def test_whole_attention_is_predicted_by_its_own_cost(make_artifact: Make) -> None:
    """4 tokens and 2 layers of width 32: 2 * 2 * 32 * 16 products."""
    cost = FormatCost(format=INT8, decode_ps_per_weight=1.0, prompt_ps_per_weight=1.0)

    def said(artifact: Path, whole: float | None) -> tuple[float, bool]:
        measured = calibration(
            costs=(cost,), attention_ps_per_product=1e6, whole_attention_ps_per_product=whole
        )
        found = predict(artifact, target(calibration=measured), prompt_tokens=4)
        assert found.first_token_ms is not None
        return found.first_token_ms.value, any("in tiles" in note for note in found.notes)

    tiled, whole = make_artifact(), make_artifact("other", attention="whole")
    assert said(tiled, 1e5) == said(tiled, None) == (pytest.approx(2048 * 1e-3, rel=0.01), False)
    assert said(whole, 1e5) == (pytest.approx(2048 * 1e-4, rel=0.01), False)
    assert said(whole, None) == (pytest.approx(2048 * 1e-3, rel=0.01), True)


def test_prompts_beside_integers_are_predicted_by_their_own_costs(make_artifact: Make) -> None:
    """As above, and 2 * 2 * 32 * 4 keys and values that are rounded after whole attention."""
    cost = FormatCost(format=INT8, decode_ps_per_weight=1.0, prompt_ps_per_weight=1.0)
    ways = {"attention_ps_per_product": 1e6, "whole_attention_ps_per_product": 1e5}
    integers = {"integer_attention_ps_per_product": 3e6, "cache_rounding_ps_per_number": 1e6}
    known = target(calibration=calibration(costs=(cost,), **ways, **integers))
    read, apart = make_artifact(cache_bits=8), make_artifact("other", attention="whole", cache_bits=8)
    for artifact, ms in ((read, 2048 * 3e-3), (apart, 2048 * 1e-4 + 512 * 1e-3)):
        found = predict(artifact, known, prompt_tokens=4)
        assert found.first_token_ms is not None
        assert found.first_token_ms.value == pytest.approx(ms, rel=0.01)
        unknown = predict(artifact, target(calibration=calibration(costs=(cost,), **ways)), prompt_tokens=4)
        assert unknown.first_token_ms is None
        assert any("beside a cache of integers weren't measured" in note for note in unknown.notes)


def test_an_interval_is_that_of_the_held_out(make_artifact: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_module, "_least_bytes", lambda: 0.0)
    found = predict(make_artifact(), target(calibration=None), depth_tokens=8)
    known = hold_out("specification")
    assert found.fidelity == "predicted"
    assert found.hold_out == known
    assert found.decode_tokens_per_second is not None
    decode = found.decode_tokens_per_second
    assert decode.low == pytest.approx(decode.value * known.low_factor)
    assert decode.high == pytest.approx(decode.value * known.high_factor)
    assert found.first_token_ms is not None
    first = found.first_token_ms
    assert first.low <= first.value < first.high  # all three no less than what a token takes


def test_formats_without_a_kernel_are_noted(make_artifact: Make) -> None:
    four = target(formats=(Format(bits=4, block_size=32),))
    assert "not among the target's formats: int8/block32" in predict(make_artifact(), four).notes


def test_a_token_smaller_than_any_published_is_noted(make_artifact: Make) -> None:
    """The tiny one reads kilobytes, the smallest published model 60 MB."""
    (note,) = (n for n in predict(make_artifact(), target()).notes if "a token reads" in n)
    assert "less than in any published speed (60.4 MB)" in note


def test_lengths_beyond_the_context_are_cut_with_a_note(make_artifact: Make) -> None:
    artifact = make_artifact()
    most = open_artifact(artifact).context_tokens
    found = predict(artifact, target(), prompt_tokens=most + 1, depth_tokens=most + 9)
    assert (found.prompt_tokens, found.depth_tokens) == (most, most)
    cut = [note for note in found.notes if "instead of" in note]
    assert [note.split(":")[0] for note in cut] == [
        f"a depth of {most} tokens instead of {most + 9}",
        f"a prompt of {most} tokens instead of {most + 1}",
    ]
    usual = predict(artifact, target())
    assert not [note for note in usual.notes if "instead of" in note]


def test_below_all_published_speeds_there_is_no_interval(
    make_artifact: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = make_artifact()
    found = predict(artifact, target())
    assert found.decode_tokens_per_second is not None
    assert (found.decode_tokens_per_second.low, found.decode_tokens_per_second.high) == (
        0.0,
        found.decode_tokens_per_second.value,
    )
    assert exit_code("predict", str(artifact), "--target", "android-flagship-2024") == 0
    assert "at most " in capsys.readouterr().out


def test_a_prompt_takes_at_least_as_long_as_a_token(make_artifact: Make) -> None:
    """One token of prompt is few operations, and all the weights."""
    artifact = make_artifact()
    found = predict(artifact, target(), prompt_tokens=1, depth_tokens=1)
    assert found.first_token_ms is not None
    assert found.decode_tokens_per_second is not None
    assert found.first_token_ms.value >= 0.999e3 / found.decode_tokens_per_second.value


def test_memory_is_moved_to_another_runtime_from_the_target_that_was_planned_for(make_artifact: Make) -> None:
    artifact = make_artifact()
    made_for, other = load_target("tiny-cpu"), target(runtime_overhead_bytes=77_000_000)
    manifest = json.loads((artifact / "edgeicl.json").read_text())
    planned = manifest["plan"]["predicted_resident_bytes"]
    assert predict(artifact, other).resident_bytes == planned
    assert any("target.resolved.yaml is not there" in note for note in predict(artifact, other).notes)
    manifest["target_digest"] = digest_of(made_for.model_dump(mode="json"))
    (artifact / "edgeicl.json").write_text(json.dumps(manifest))
    (artifact / "target.resolved.yaml").write_text(dump_yaml(made_for))
    moved = predict(artifact, other)
    assert moved.resident_bytes == planned - made_for.runtime_overhead_bytes + 77_000_000
    assert not any("target.resolved.yaml" in note for note in moved.notes)
    edited = made_for.model_copy(update={"runtime_overhead_bytes": 1000})
    (artifact / "target.resolved.yaml").write_text(dump_yaml(edited))
    found = predict(artifact, other)
    assert found.resident_bytes == planned
    assert any("target.resolved.yaml is another than it was compiled for" in note for note in found.notes)


def test_labels_alone_decode_nothing(make_artifact: Make) -> None:
    found = predict(make_artifact(labels_alone=True), target())
    assert found.decode_tokens_per_second is None
    assert found.first_token_ms is not None


def test_the_command(make_artifact: Make, capsys: pytest.CaptureFixture[str]) -> None:
    artifact = str(make_artifact())
    assert exit_code("predict", artifact, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert {entry["target"] for entry in found} == {one.name for one in known_targets()}
    assert len(found) >= 15
    assert {entry["fidelity"] for entry in found} == {"predicted"}
    assert exit_code("predict", artifact, "--target", "raspberry-pi-5") == 0
    told = capsys.readouterr().out
    assert "All figures are predicted" in told
    assert "median error" in told
    assert exit_code("predict", artifact, "--target", "host-cpu") == 9
    assert "edgeicl probe" in capsys.readouterr().err
    assert exit_code("predict") == 2
