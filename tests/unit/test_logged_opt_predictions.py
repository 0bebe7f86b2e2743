"""What is known of the logged OPT runs comes out of our measures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeicl.distill.evaluate import accuracy_row
from tests.logged_opt_predictions import LABELS, Logged, gain, read_logged, refused

REAL = Path(__file__).parents[3] / "shared" / "data"
pytestmark = pytest.mark.skipif(
    not REAL.exists(), reason="real data (shared/data beside the repository) is absent"
)


@pytest.fixture(scope="module")
def logged() -> Logged:
    return read_logged(REAL)


def test_every_run_has_its_reported_accuracy(logged: Logged) -> None:
    assert len(logged.gold) == 6692
    for key, runs in logged.predicted.items():
        row = accuracy_row(key[0], "in_domain", runs, logged.gold, LABELS)
        assert row.accuracy.values == pytest.approx(logged.reported[key], abs=1e-9)
    means = {key: round(float(np.mean(values)), 3) for key, values in logged.reported.items()}
    assert means == {
        ("opt-125m", 2): 0.543,
        ("opt-125m", 32): 0.528,
        ("opt-1.3b", 2): 0.58,
        ("opt-1.3b", 32): 0.606,
    }


def test_misaligned_lines_would_be_noticed(logged: Logged) -> None:
    """Negative control: the same predictions against the labels of the examples before."""
    moved = np.roll(logged.gold, 1)
    row = accuracy_row("m", "in_domain", logged.predicted["opt-1.3b", 32], moved, LABELS)
    assert abs(row.balanced_accuracy.mean - 0.5) < 0.02


def test_what_the_gate_says_of_them(logged: Logged) -> None:
    constant = np.zeros_like(logged.gold)
    assert refused(gain(logged, "opt-125m", logged.predicted["opt-125m", 2][0]))
    assert not refused(gain(logged, "opt-1.3b", constant))
    # Against itself it gains nothing, whatever its accuracy is.
    itself = Logged(logged.gold, {("opt-1.3b", 32): logged.predicted["opt-1.3b", 32][:1] * 5}, {})
    assert refused(gain(itself, "opt-1.3b", logged.predicted["opt-1.3b", 32][0]))
