from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import OPTForCausalLM

from edgeicl.distill.fine_tuning import fine_tune
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.student import distill_student, mean_kl
from edgeicl.distill.trainer import TrainingSettings
from edgeicl.distill.training_plan import batch_order, learning_rate_at
from tests.killed_training import counted_steps, killed_before

ROWS = [[0, *range(20 + n, 24 + n + n % 3)] for n in range(30)]
TOKENS = [(40,), (50,)]
GOLD = np.arange(30) % 2
TARGETS = np.log(np.where(np.arange(30)[:, None] % 2 == np.arange(2), 0.9, 0.1)).astype(np.float32)


def settings(**changes: object) -> TrainingSettings:
    values = {
        "learning_rate": 3e-3,
        "epochs": 2,
        "batch_size": 8,
        "warmup_ratio": 0.25,
        "weight_decay": 0.01,
        "max_gradient_norm": 1.0,
        "checkpoint_every_steps": 3,
    }
    return TrainingSettings(**values | changes)  # type: ignore[arg-type]


def distill(
    reader: LabelReader,
    folder: Path | None = None,
    *,
    over: str = "verbalizers",
    ce: float = 0.0,
    **changes: object,
) -> list[float]:
    return distill_student(
        reader,
        rows=ROWS,
        tokens=TOKENS,
        targets=TARGETS,
        gold=GOLD,
        over=over,  # type: ignore[arg-type]
        kl=1.0,
        ce=ce,
        temperature=1.0,
        settings=settings(**changes),
        seed=0,
        checkpoint_folder=folder,
    )


def weights(reader: LabelReader) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in reader.state_dict().items()}


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 3), st.integers(0, 5))
def test_every_epoch_has_every_example_once(count: int, batch: int, epochs: int, seed: int) -> None:
    lengths = [1 + n % 5 for n in range(count)]
    order = batch_order(lengths, batch_size=batch, epochs=epochs, seed=seed)
    assert max(map(len, order)) <= batch
    per_epoch = len(order) // epochs
    for epoch in range(epochs):
        seen = np.concatenate(order[epoch * per_epoch : (epoch + 1) * per_epoch])
        assert sorted(seen) == list(range(count))
    again = batch_order(lengths, batch_size=batch, epochs=epochs, seed=seed)
    assert all(np.array_equal(first, second) for first, second in zip(order, again, strict=True))


def test_learning_rate_on_paper() -> None:
    rates = [learning_rate_at(step, steps=10, peak=1.0, warmup_ratio=0.2) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])


def test_the_student_comes_closer_to_its_teacher(opt: Callable[..., OPTForCausalLM]) -> None:
    reader = LabelReader(opt(seed=4))
    before = mean_kl(reader, rows=ROWS, tokens=TOKENS, targets=TARGETS, over="verbalizers")
    distill(reader, epochs=8)
    after = mean_kl(reader, rows=ROWS, tokens=TOKENS, targets=TARGETS, over="verbalizers")
    assert after < 0.2 * before


def test_vocabulary_targets_and_cross_entropy(opt: Callable[..., OPTForCausalLM]) -> None:
    teacher, reader = LabelReader(opt(seed=5)), LabelReader(opt(seed=6))
    targets = trainer_targets(teacher)
    before = mean_kl(reader, rows=ROWS, tokens=TOKENS, targets=targets, over="vocabulary")
    losses = distill_student(
        reader,
        rows=ROWS,
        tokens=TOKENS,
        targets=targets,
        gold=GOLD,
        over="vocabulary",
        kl=1.0,
        ce=0.1,
        temperature=2.0,
        settings=settings(epochs=6),
        seed=0,
        checkpoint_folder=None,
    )
    assert losses[-1] < losses[0]
    assert mean_kl(reader, rows=ROWS, tokens=TOKENS, targets=targets, over="vocabulary") < 0.7 * before


def trainer_targets(teacher: LabelReader) -> np.ndarray:
    from edgeicl.distill.scoring import score_queries

    return score_queries(teacher, ROWS, TOKENS, before=(), over="vocabulary").astype(np.float16)


def test_fine_tuning_learns_its_few_examples(opt: Callable[..., OPTForCausalLM]) -> None:
    reader = LabelReader(opt(seed=7))
    losses = fine_tune(
        reader, rows=ROWS[:8], tokens=TOKENS, gold=GOLD[:8], settings=settings(epochs=60), seed=0
    )
    assert losses[-1] < 0.3 < losses[0]


@pytest.mark.parametrize("step", [2, 3, 5])
def test_a_killed_run_goes_on_to_the_same_bits(
    opt: Callable[..., OPTForCausalLM], tmp_path: Path, step: int
) -> None:
    whole = LabelReader(opt(seed=8))
    losses = distill(whole)
    with killed_before(step):
        distill(LabelReader(opt(seed=8)), tmp_path / "checkpoint")
    resumed = LabelReader(opt(seed=8))
    with counted_steps() as steps:
        assert distill(resumed, tmp_path / "checkpoint") == losses
    assert len(steps) == 8 - step // 3 * 3  # only what came after the last checkpoint was done again
    assert weights(whole).keys() == weights(resumed).keys()
    for name, value in weights(whole).items():
        assert torch.equal(value, resumed.state_dict()[name]), name


@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_checkpoint_is_told_and_not_used(
    opt: Callable[..., OPTForCausalLM],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    losses = distill(LabelReader(opt(seed=8)), tmp_path)
    (state,) = tmp_path.rglob("training.pt")
    contents = bytearray(state.read_bytes())
    contents[len(contents) // 2] ^= 1
    if damage == "remove":
        state.unlink()
    else:
        state.write_bytes(contents if damage == "flip" else contents[:-100])
    assert distill(LabelReader(opt(seed=8)), tmp_path) == losses
    assert "training.pt; starting over" in caplog.text


def test_other_seeds_end_elsewhere(opt: Callable[..., OPTForCausalLM]) -> None:
    """The negative control of the test above."""
    first, second = LabelReader(opt(seed=8)), LabelReader(opt(seed=8))
    distill(first)
    distill(second, learning_rate=3.001e-3)
    assert not all(torch.equal(value, second.state_dict()[name]) for name, value in weights(first).items())
