"""Language modelling on plain text: the next token, and the teacher's probabilities of it.

Notation: B blocks of T tokens, V vocabulary.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from edgeicl.distill.objective import kl_to_teacher


def text_loss(
    student: Tensor, teacher: Tensor | None, blocks: Tensor, *, kl: float, ce: float, temperature: float
) -> Tensor:
    """ce * -log p(next token) + kl * KL to the teacher's next token, the mean over each block, [B] in nats.

    Args:
        student: Logits [B, T, V] at the tokens of `blocks` [B, T].
        teacher: The same of the teacher; None where `kl` is 0.
    """
    said = student[:, :-1].float()
    loss = ce * F.cross_entropy(said.transpose(1, 2), blocks[:, 1:], reduction="none").mean(1)
    if teacher is None or not kl:
        return loss
    soft = kl_to_teacher(said, teacher[:, :-1].float(), temperature=temperature)
    return loss + kl * soft.mean(1)
