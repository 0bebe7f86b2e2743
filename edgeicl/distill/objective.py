"""What is minimized, one value an example, in nats.

Notation: B examples, C classes (labels, or the vocabulary). All arguments are log-probabilities [B, C].
"""

from __future__ import annotations

from torch import Tensor


def kl_to_teacher(student: Tensor, teacher: Tensor, *, temperature: float = 1.0) -> Tensor:
    """T^2 * KL(teacher || student) of both distributions at temperature T, [B].

    T^2 keeps the size of the gradient when T changes (Hinton et al., 2015, arXiv 1503.02531, section 2).
    At T = 1 this is the loss of context distillation (arXiv 2412.13243); that paper's direction and
    temperature are not published, so forward KL is this program's choice.
    """
    softened_student = (student / temperature).log_softmax(-1)
    softened_teacher = (teacher / temperature).log_softmax(-1)
    divergence = softened_teacher.exp() * (softened_teacher - softened_student)
    return divergence.sum(-1) * temperature**2


def reverse_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(student || teacher) over the last axis: what a student pays for what the teacher would not say."""
    return (student.exp() * (student - teacher)).sum(-1)


def cross_entropy(student: Tensor, gold: Tensor) -> Tensor:
    """-log p(gold class), [B]; `gold` holds class indices [B]."""
    return -student.gather(-1, gold[:, None])[:, 0]


def distillation_loss(
    student: Tensor, teacher: Tensor, gold: Tensor, *, kl: float, ce: float, temperature: float
) -> Tensor:
    """kl * KL to the teacher + ce * cross-entropy to the gold label, [B]."""
    loss = kl * kl_to_teacher(student, teacher, temperature=temperature)
    return loss + ce * cross_entropy(student, gold) if ce else loss
