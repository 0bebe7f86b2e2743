"""On-policy distillation: the student goes on after a query, the teacher judges what it wrote.

Source: GKD (Agarwal et al., 2023, arXiv 2306.13649, section 3) with reverse KL; with a teacher that sees a
context its student does not, OPCD (arXiv 2602.12275). No gradient flows through the sampling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeicl.distill.label_batch import packed_pass, padded_pass
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.objective import reverse_kl
from edgeicl.distill.prefix_cache import Prefix, encode_prefix
from edgeicl.distill.sampling import sample
from edgeicl.distill.scoring import pack_tokens, packs
from edgeicl.distill.trainer import Loss


def on_policy_loss(
    student: LabelReader,
    teacher: LabelReader,
    *,
    queries: Sequence[Sequence[int]],
    leading: Sequence[int],
    contexts: Sequence[Sequence[int]],
    tokens: int,
    temperature: float,
    end_tokens: Sequence[int],
    weight: float,
    seed: int,
) -> Loss:
    """A term for `trainer.train` over `student`: weight * mean reverse KL over the tokens it sampled.

    Args:
        queries: Token ids of the examples, without what stands before them.
        leading: Stands before a query of the student, alone.
        contexts: Each stands before a query of the teacher: a demonstration set with its leading tokens. Their
            keys and values are computed here, once; of several, the probabilities are averaged.
        end_tokens: What is sampled after one of them does not count.
    """
    prefixes = [encode_prefix(teacher.model, context) for context in contexts]

    def loss(module: nn.Module, examples: NDArray[np.int64], step: int) -> Tensor:
        asked = [list(queries[index]) for index in examples]
        prompts = [[*leading, *query] for query in asked]
        # Of the example and the step, so that processes that share a batch draw what one alone would.
        draws = np.stack([np.random.default_rng([seed, step, int(i)]).random(tokens) for i in examples])
        written = sample(student.model, prompts, draws, temperature=temperature)
        # The last token is not read: what follows it is not judged.
        goes_on = written[:, :-1].tolist()
        judged = teacher_log_probabilities(
            teacher, prefixes, [[*q, *w] for q, w in zip(asked, goes_on, strict=True)], read=tokens
        )
        rows = [[*prompt, *w] for prompt, w in zip(prompts, goes_on, strict=True)]
        divergence = reverse_kl(module(padded_pass(rows, student.device, read=tokens)), judged)
        counts = _until_end(written, end_tokens)
        return weight * (divergence * counts).sum(-1) / counts.sum(-1)

    return loss


@torch.no_grad()
def teacher_log_probabilities(
    teacher: LabelReader, prefixes: Sequence[Prefix], rows: Sequence[Sequence[int]], *, read: int
) -> Tensor:
    """Log of the mean over prefixes of the probabilities after each of the last `read` tokens, [B, read, V]."""
    found = []
    for pack in packs(rows, pack_tokens(teacher.device.type)):
        of_prefix = [
            teacher(
                packed_pass(
                    pack,
                    teacher.device,
                    read=read,
                    prefix_tokens=prefix.tokens,
                    dtype=teacher.model.dtype,
                ),
                prefix=prefix,
            )
            for prefix in prefixes
        ]
        found.append(torch.stack(of_prefix).logsumexp(0) - math.log(len(prefixes)))
    return torch.cat(found)


def end_tokens(configured: int | list[int] | None) -> list[int]:
    """The tokens that end a text, of which a configuration may name none, one or several."""
    return configured if isinstance(configured, list) else [] if configured is None else [configured]


def _until_end(written: Tensor, end_tokens: Sequence[int]) -> Tensor:
    """1 for every token [B, T] up to the first end token, that one included; else 0."""
    ends = torch.isin(written, torch.tensor(end_tokens, dtype=written.dtype, device=written.device)).int()
    return ((ends.cumsum(-1) - ends) == 0).int()
