from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgeicl.distill.objective import cross_entropy, distillation_loss, kl_to_teacher
from tests.unit import divergence


def logs(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


def test_kl_on_paper() -> None:
    # 3/4 log(3/2) + 1/4 log(1/2) = 0.1308 nats; the other direction differs: 1/2 log(2/3) + 1/2 log 2 = 0.1438.
    teacher, student = logs((0.75, 0.25)), logs((0.5, 0.5))
    forward = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kl_to_teacher(student, teacher).item() == pytest.approx(forward, abs=1e-12)
    assert kl_to_teacher(teacher, student).item() == pytest.approx(0.143841, abs=1e-6)


def test_temperature_on_paper() -> None:
    # At T = 2 odds 9:1 become 3:1, so this is 4 times the figure above.
    teacher, student = logs((0.9, 0.1)), logs((0.5, 0.5))
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert kl_to_teacher(student, teacher, temperature=2.0).item() == pytest.approx(expected, abs=1e-12)


def test_mixture_on_paper() -> None:
    teacher, student = logs((0.75, 0.25)), logs((0.5, 0.5))
    gold = torch.tensor([1])
    assert cross_entropy(student, gold).item() == pytest.approx(math.log(2), abs=1e-12)
    loss = distillation_loss(student, teacher, gold, kl=2.0, ce=0.5, temperature=1.0).item()
    assert loss == pytest.approx(2 * 0.130812 + 0.5 * 0.693147, abs=1e-5)


@given(st.lists(st.lists(st.floats(-8, 8), min_size=3, max_size=3), min_size=2, max_size=2))
def test_agrees_with_the_numpy_reference(logits: list[list[float]]) -> None:
    first, second = (np.array(row) for row in logits)
    ours = kl_to_teacher(
        torch.from_numpy(second)[None].log_softmax(-1), torch.from_numpy(first)[None].log_softmax(-1)
    ).item()
    assert ours == pytest.approx(float(divergence.kl(first, second)), abs=1e-9)
    assert ours >= -1e-12
    same = torch.from_numpy(first)[None]
    assert kl_to_teacher(same, same).item() == pytest.approx(0.0, abs=1e-12)


def test_no_gradient_once_the_student_agrees() -> None:
    logits = torch.tensor([[0.3, -0.2, 1.0]], dtype=torch.float64, requires_grad=True)
    kl_to_teacher(logits.log_softmax(-1), logits.detach().log_softmax(-1), temperature=3.0).sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().max().item() < 1e-12
