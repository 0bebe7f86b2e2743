"""Language modelling on plain text beside the task, so that a student does not forget it.

Cross-entropy with the text itself (the hard term of arXiv 2212.10670, section 3). There is no soft one: on
text without demonstrations this teacher has no context to hand down.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeicl.distill.label_batch import padded_pass
from edgeicl.distill.trainer import Loss

BLOCK_TOKENS = 128
"""Tokens of a block, or as many as the student reads where that is fewer."""


def text_loss(blocks: NDArray[np.int64], *, weight: float, seed: int, device: torch.device) -> Loss:
    """A term for `trainer.train`: weight * mean cross-entropy, in nats a token, of one block an example.

    `blocks` [N, T] are token ids. A block is drawn for each example and step, with replacement.
    """

    def loss(module: nn.Module, examples: NDArray[np.int64], step: int) -> Tensor:
        drawn = [np.random.default_rng([seed, step, int(i), 1]).integers(len(blocks)) for i in examples]
        chosen = blocks[drawn]
        read = chosen.shape[1] - 1
        predicted = module(padded_pass(chosen[:, :-1].tolist(), device, read=read))
        following = torch.from_numpy(chosen[:, 1:]).to(device)
        likelihood: Tensor = predicted.gather(-1, following[..., None])[..., 0].mean(-1)
        return -weight * likelihood

    return loss
