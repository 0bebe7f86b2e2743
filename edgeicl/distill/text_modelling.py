"""Language modelling on plain text beside the task, so that a student does not forget it.

The cross-entropy with the text itself (the hard term of arXiv 2212.10670, section 3), and where a teacher is
given the divergence from its next tokens (the soft term). Context distillation has no soft one: on text
without demonstrations its teacher has no context to hand down.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeicl.distill.label_batch import padded_pass
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.objective import kl_to_teacher
from edgeicl.distill.trainer import Loss
from edgeicl.models.loading import config_number, load_tokenizer
from edgeicl.tasks.text_blocks import text_blocks

BLOCK_TOKENS = 128
"""Tokens of a block, or as many as the student reads where that is fewer."""


def blocks_for(student: Path, documents: Sequence[str]) -> NDArray[np.int64]:
    """`documents` as blocks [N, T] of token ids that the model in the folder `student` reads."""
    return text_blocks(
        load_tokenizer(student),
        documents,
        block_tokens=min(BLOCK_TOKENS, config_number(student, "max_position_embeddings")),
    )


@dataclass(frozen=True)
class TextTeacher:
    """A model whose next tokens are learned; `weight_at` gives the weight of the divergence in each step.

    It reads each block when the student does: its probabilities of every token would fill a disk.
    """

    reader: LabelReader
    weight_at: Callable[[int], float]
    temperature: float = 1.0


def text_loss(
    blocks: NDArray[np.int64],
    *,
    weight: float,
    seed: int,
    device: torch.device,
    ce: float = 1.0,
    teacher: TextTeacher | None = None,
) -> Loss:
    """A term for `trainer.train`: weight * (ce * hard + soft term), in nats a token, of one block an example.

    `blocks` [N, T] are token ids. A block is drawn for each example and step, with replacement.
    """

    def loss(module: nn.Module, examples: NDArray[np.int64], step: int) -> Tensor:
        drawn = [np.random.default_rng([seed, step, int(i), 1]).integers(len(blocks)) for i in examples]
        chosen = blocks[drawn]
        read = padded_pass(chosen[:, :-1].tolist(), device, read=chosen.shape[1] - 1)
        predicted: Tensor = module(read)
        following = torch.from_numpy(chosen[:, 1:]).to(device)
        value = -ce * predicted.gather(-1, following[..., None])[..., 0].mean(-1)
        if teacher and (kl := teacher.weight_at(step)):
            with torch.no_grad():
                taught = teacher.reader(read)
            value = value + kl * kl_to_teacher(predicted, taught, temperature=teacher.temperature).mean(-1)
        return weight * value

    return loss
