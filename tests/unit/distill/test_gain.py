from __future__ import annotations

import numpy as np
import pytest

from edgeicl.distill.gain import certain_gain, measure_gain
from edgeicl.errors import GainError

LABELS = ("yes", "no")


def scores(predicted: np.ndarray) -> np.ndarray:
    return np.log(np.where(predicted[:, None] == np.arange(2), 0.8, 0.2))


def test_gain_on_paper() -> None:
    # 4 yes, 2 no. Without: always yes, balanced 50 %. With: 3 of 4 and 2 of 2 right, balanced 87.5 %.
    gold = np.array([0, 0, 0, 0, 1, 1])
    shown = scores(np.array([0, 0, 0, 1, 1, 1]))
    gain = measure_gain([shown, shown], scores(np.zeros(6)), gold, LABELS)
    assert gain.points.mean == pytest.approx(37.5)
    assert gain.with_demonstrations["yes"].mean == 0.75
    assert gain.without_demonstrations == {"yes": 1.0, "no": 0.0}
    # Paired differences: yes 0, 0, 0, -1 (variance 3/16), no 1, 1 (variance 0).
    assert gain.chance_points == pytest.approx(196 * (3 / 16 / 4 / 4) ** 0.5)


def test_a_clear_gain_passes_and_shuffled_labels_do_not(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    gold = np.arange(400) % 2
    plain = scores(np.zeros(400))
    good = [scores(np.where(rng.random(400) < 0.9, gold, 1 - gold)) for _ in range(5)]
    gain = measure_gain(good, plain, gold, LABELS)
    assert certain_gain(gain, required=True)
    assert 30 < gain.points.low < gain.points.mean < 45
    # The negative control: the same teacher, its answers dealt to other examples.
    shuffled = [one[rng.permutation(400)] for one in good]
    with pytest.raises(
        GainError, match=r"interval .* over 5 demonstration seeds .*\n  yes .* without, .* with"
    ):
        certain_gain(measure_gain(shuffled, plain, gold, LABELS), required=True)
    with caplog.at_level("WARNING", logger="edgeicl"):
        assert not certain_gain(measure_gain(shuffled, plain, gold, LABELS), required=False)
    assert "distill.require_gain is false" in caplog.text


def test_a_gain_that_all_seeds_share_by_chance_is_refused() -> None:
    """Seeds that agree make a narrow interval; so few examples prove nothing all the same."""
    gold = np.arange(40) % 2
    plain = np.zeros(40)
    lucky = np.zeros(40)
    lucky[[1, 3]] = 1
    gain = measure_gain([scores(lucky)] * 5, scores(plain), gold, LABELS)
    assert gain.points.low > 0
    with pytest.raises(GainError, match=r"more than the 6\.\d points that 40 examples may show by chance"):
        certain_gain(gain, required=True)


def test_a_loss_is_refused() -> None:
    gold = np.arange(100) % 2
    gain = measure_gain([scores(1 - gold)] * 3, scores(gold), gold, LABELS)
    with pytest.raises(GainError, match=r"-100\.0 points"):
        certain_gain(gain, required=True)


def test_what_to_do_next_depends_on_what_was_seen() -> None:
    gold = np.arange(400) % 2
    plain = scores(np.zeros(400))
    rng = np.random.default_rng(0)
    good, better = (scores(np.where(rng.random(400) < share, gold, 1 - gold)) for share in (0.75, 0.95))
    with pytest.raises(GainError) as too_few:
        certain_gain(measure_gain([good, better], plain, gold, LABELS), required=True)
    assert "name more demonstration seeds: 2 give too wide an interval" in too_few.value.next_step
    with pytest.raises(GainError) as one_answer:
        certain_gain(measure_gain([plain] * 5, scores(gold), gold, LABELS), required=True)
    assert "it answers 'yes' to everything: take a teacher" in one_answer.value.next_step
    with pytest.raises(GainError) as nothing:
        certain_gain(measure_gain([good] * 5, scores(gold), gold, LABELS), required=True)
    assert nothing.value.next_step.startswith("take another teacher")
