"""What predictions err by on held-out chips: the fit on paper, no leaks, and the documented figures."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeicl.bench.prediction.efficiency import Efficiency, fitted
from edgeicl.bench.prediction.holdout import (
    chip_errors,
    coverage,
    exchanged,
    known_errors,
    relative,
    validation,
)
from edgeicl.bench.prediction.prefill import chip_interval
from edgeicl.bench.prediction.published import PublishedSpeed, left_out, published_speeds
from edgeicl.report.prediction_text import validation_text

RESULTS = Path(__file__).parents[4] / "docs" / "results" / "prediction.md"
SPEED = PublishedSpeed(
    device="a", soc="a", memory_bytes_per_second=10e9, i8mm=False, engine="e", model="m", bits=4.0,
    token_bytes=1e9, decode_tokens_per_second=5.0, prefill_tokens_per_second=100.0, body_parameters=1e9,
    source="s",
)  # fmt: skip


def made_up(share: float, slope: float) -> list[PublishedSpeed]:
    """Chips that follow the law exactly."""
    found = []
    for soc, memory in (("a", 10e9), ("b", 30e9), ("c", 80e9)):
        for size in (0.25e9, 1e9, 4e9):
            bandwidth = Efficiency(share, slope).bandwidth(memory, size)
            found.append(
                replace(
                    SPEED, device=soc, soc=soc, memory_bytes_per_second=memory, token_bytes=size,
                    decode_tokens_per_second=bandwidth / size,
                )
            )  # fmt: skip
    return found


def test_a_law_on_paper() -> None:
    """Half of 10 GB/s at 1 GB a token, and a quarter less of the logarithm for each factor e."""
    assert Efficiency(0.5, 0.0).bandwidth(10e9, 4e9) == 5e9
    assert Efficiency(0.5, 0.25).bandwidth(10e9, 16e9) == pytest.approx(10e9, rel=1e-12)
    assert SPEED.bandwidth == 5e9
    assert SPEED.prefill_flops_per_second == 2e11


def test_a_law_is_found_again() -> None:
    """Up to what the smallest ridge shrinks the slope by."""
    found = fitted(made_up(0.5, 0.2))
    assert found.share == pytest.approx(0.5, rel=0.01)
    assert found.slope == pytest.approx(0.2, abs=0.01)
    assert relative(chip_errors(made_up(0.5, 0.0))).max() < 1e-12


def test_a_chip_is_never_predicted_from_itself() -> None:
    """A chip ten times as fast as the law predicts is missed by a factor of ten, whatever its own rows say."""
    speeds = [
        replace(s, decode_tokens_per_second=10 * s.decode_tokens_per_second) if s.soc == "c" else s
        for s in made_up(0.5, 0.0)
    ]
    errors = dict(zip([s.soc for s in speeds], chip_errors(speeds), strict=True))
    assert errors["c"] == pytest.approx(-np.log(10), rel=1e-9)


def test_a_probe_is_the_nearest_other_speed_of_the_device_and_engine() -> None:
    speeds = [
        SPEED,
        replace(SPEED, model="b", token_bytes=2e9, decode_tokens_per_second=3.0),  # 6 GB/s
        replace(SPEED, model="c", token_bytes=8e9, decode_tokens_per_second=1.0),  # 8 GB/s
        replace(SPEED, engine="other", token_bytes=1e9, decode_tokens_per_second=4.0),  # 4 GB/s
    ]
    errors = known_errors(speeds, "probe")
    assert set(errors) == {0, 1, 2}
    assert np.exp(errors[0]) == pytest.approx(6 / 5)
    assert np.exp(errors[2]) == pytest.approx(6 / 8)
    assert np.exp(known_errors(speeds, "published")[0]) == pytest.approx(6 / 5)  # the median of 6, 8 and 4


def test_a_repetition_of_the_measurement_predicts_nothing() -> None:
    again = replace(SPEED, decode_tokens_per_second=SPEED.decode_tokens_per_second * 1.01)
    other = replace(SPEED, model="b", decode_tokens_per_second=SPEED.decode_tokens_per_second * 2)
    for method in ("probe", "published"):
        assert known_errors([SPEED, again], method) == {}
        assert np.exp(known_errors([SPEED, again, other], method)[0]) == pytest.approx(2.0)


def test_coverage_counts_what_lies_within_the_others_interval() -> None:
    errors = np.array([0.0, 0.1, -0.1] * 3 + [5.0])
    groups = ["a"] * 3 + ["b"] * 3 + ["c"] * 3 + ["d"]
    assert coverage(errors, groups) == pytest.approx(0.9)
    assert coverage(errors, ["a"] * 10) is None


def test_the_bars_and_chance() -> None:
    found = {entry.method: entry for entry in validation().hold_outs}
    assert found["specification"].median_error <= 0.20
    assert found["specification"].p90_error <= 0.45
    assert found["probe"].median_error <= 0.08
    # Negative control: with other chips' memory it is no better than a guess.
    assert validation().shuffled_median_error > 2 * found["specification"].median_error
    assert all(0.7 <= (entry.coverage or 0.0) <= 0.9 for entry in found.values())


def test_every_published_speed_is_used_or_says_why_not() -> None:
    assert len(published_speeds()) + sum(left_out().values()) == 142
    assert all(speed.source and speed.memory_bytes_per_second > 5e9 for speed in published_speeds())
    # None reads faster than its memory: a figure that did would be a mistake of somebody's.
    assert max(s.bandwidth / s.memory_bytes_per_second for s in published_speeds()) < 1.0


def test_shuffling_changes_chips_not_speeds() -> None:
    before, after = published_speeds(), exchanged(published_speeds())
    assert [s.bandwidth for s in before] == [s.bandwidth for s in after]
    assert sorted(s.memory_bytes_per_second for s in before) != [s.memory_bytes_per_second for s in after]


def test_prompts_by_chips() -> None:
    rows = [replace(SPEED, soc=name, prefill_tokens_per_second=rate) for name, rate in (("a", 1.0), ("b", 4.0))]
    found = chip_interval([*rows, replace(rows[0], prefill_tokens_per_second=3.0)])
    assert found is not None
    assert (found.low, found.value, found.high) == (4e9, 6e9, 8e9)
    assert chip_interval(rows[:1]) is None


def test_the_documented_table_is_what_the_command_prints() -> None:
    text = RESULTS.read_text()
    (block,) = re.findall(r"```\n\$ edgeicl predict --validate\n(.*?)```", text, re.DOTALL)
    assert block.strip() == validation_text(validation()).strip()
