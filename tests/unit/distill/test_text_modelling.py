from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional
from transformers import OPTForCausalLM

from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.label_training import train_on_labels
from edgeicl.distill.objective import cross_entropy
from edgeicl.distill.text_modelling import text_loss
from tests.unit.distill.test_trainer import GOLD, ROWS, TOKENS, settings

BLOCKS = np.arange(5 * 12).reshape(5, 12) + 20


def test_it_is_the_cross_entropy_of_one_block_an_example(opt: Callable[..., OPTForCausalLM]) -> None:
    reader = LabelReader(opt(seed=3))
    loss = text_loss(BLOCKS, weight=0.5, seed=7, device=reader.device)
    found = loss(reader, np.array([4, 9]), 2)
    with torch.no_grad():
        logits = reader.model(torch.from_numpy(BLOCKS)).logits
    each = [
        0.5 * functional.cross_entropy(logits[n, :-1], torch.from_numpy(BLOCKS[n, 1:])).item() for n in range(5)
    ]
    assert all(min(abs(value - one) for one in each) < 1e-5 for value in found.tolist())
    assert loss(reader, np.array([9]), 2).item() == pytest.approx(found[1].item(), abs=1e-5)
    steps = {round(loss(reader, np.array([9]), step).item(), 4) for step in range(40)}
    assert len(steps) == 5  # every block is drawn at some time


def test_a_student_that_models_text_keeps_the_text(opt: Callable[..., OPTForCausalLM]) -> None:
    found = {}
    for weight in (0.0, 1.0):
        reader = LabelReader(opt(seed=3))
        text = text_loss(BLOCKS, weight=1.0, seed=0, device=reader.device)
        answers = torch.from_numpy(GOLD)
        train_on_labels(
            reader,
            rows=ROWS,
            tokens=TOKENS,
            over="verbalizers",
            loss=lambda words, indices, gold=answers: cross_entropy(words, gold[indices]),
            further=[text] if weight else [],
            settings=settings(epochs=6),
            seed=0,
        )
        with torch.no_grad():
            found[weight] = text(reader, np.arange(20), 0).mean().item()
    assert found[1.0] < 0.5 * found[0.0]
