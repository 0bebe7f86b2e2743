"""The domain head: what a meta-teacher's hidden states must not give away.

Source: Meta-KD (arXiv 2012.01266), section 3, feature-level transferable knowledge.
Notation: B examples, H width of the model, K domains.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

ConfusionLabels = Literal["wrong", "shuffled", "reversed"]


class DomainHead(nn.Module):
    """Tells the domain from the mean of the hidden states and, where `embedded`, the domain's embedding."""

    def __init__(self, width: int, domains: int, *, embedded: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(domains, width) if embedded else None
        self.dense = nn.Linear(width, width)
        self.classifier = nn.Linear(width, domains)

    def feature(self, content: Tensor, domains: Tensor) -> Tensor:
        """tanh(W (content + embedding of the domain) + b), [B, H], of mean hidden states [B, H]."""
        told = content if self.embedding is None else content + self.embedding(domains)
        feature: Tensor = self.dense(told).tanh()
        return feature

    def forward(self, content: Tensor, domains: Tensor) -> Tensor:
        """Logits of the domains, [B, K]. Without an embedding, gradients into `content` are reversed."""
        if self.embedding is None:
            content = reversed_gradient(content)
        logits: Tensor = self.classifier(self.feature(content, domains))
        return logits

    @torch.no_grad()
    def imagine(self, unseen: int) -> None:
        """Gives a domain that was never trained on the mean embedding of all others."""
        if self.embedding is not None:
            others = [row for row in range(self.embedding.num_embeddings) if row != unseen]
            self.embedding.weight[unseen] = self.embedding.weight[others].mean(0)


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, content: Tensor) -> Tensor:
        return content.view_as(content)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


def reversed_gradient(content: Tensor) -> Tensor:
    """`content` itself, with its gradient times -1 (Ganin and Lempitsky, 2015, arXiv 1409.7495)."""
    reversed_: Tensor = _Reversal.apply(content)  # type: ignore[no-untyped-call]
    return reversed_


def told_domains(
    domains: NDArray[np.int64], *, labels: ConfusionLabels, known: NDArray[np.int64], seed: tuple[int, ...]
) -> NDArray[np.int64]:
    """The domains [B] that the head is trained to answer for a batch of examples of `domains` [B].

    wrong: any of `known` but the example's own, drawn evenly: the loss of the paper. shuffled: those of the
    batch in random order, so that some stay right: the public code. reversed: the true ones. An only domain
    stays right.
    """
    rng = np.random.default_rng(seed)
    if labels == "reversed" or len(known) == 1:
        return domains
    if labels == "shuffled":
        return rng.permutation(domains)
    steps = rng.integers(1, len(known), size=len(domains))
    return np.asarray(known[(np.searchsorted(known, domains) + steps) % len(known)])
