from __future__ import annotations

import numpy as np
import pytest
import torch

from edgeicl.distill.meta_kd.domain_head import DomainHead, reversed_gradient, told_domains
from edgeicl.distill.meta_kd.meta_teacher import meta_teacher_loss

KNOWN = np.arange(4)


def test_a_wrong_domain_is_never_the_own_one_and_each_other_as_often() -> None:
    own = np.repeat(KNOWN, 3000)
    told = told_domains(own, labels="wrong", known=KNOWN, seed=(0, 0))
    assert not (told == own).any()
    counts = np.bincount(told[own == 2], minlength=4)
    assert counts[2] == 0
    # Three others, 1,000 each; five standard deviations are 129.
    assert np.abs(counts[[0, 1, 3]] - 1000).max() < 130


def test_a_domain_the_teacher_never_sees_is_never_told() -> None:
    told = told_domains(np.repeat([1, 3], 50), labels="wrong", known=np.array([1, 3]), seed=(0, 0))
    assert told.tolist() == [3] * 50 + [1] * 50


def test_shuffled_domains_are_those_of_the_batch() -> None:
    own = np.repeat(KNOWN, 8)
    told = told_domains(own, labels="shuffled", known=KNOWN, seed=(0, 1))
    assert np.bincount(told).tolist() == [8] * 4
    assert (told != own).any()
    assert (told == own).any()


def test_an_only_domain_has_no_wrong_one() -> None:
    own = np.zeros(3, np.int64)
    assert told_domains(own, labels="wrong", known=np.array([0]), seed=(0, 0)).tolist() == [0, 0, 0]


def test_what_is_told_depends_on_seed_and_step_alone() -> None:
    own = np.repeat(KNOWN, 8)
    first, again, later = (told_domains(own, labels="wrong", known=KNOWN, seed=(7, step)) for step in (3, 3, 4))
    assert (first == again).all()
    assert (first != later).any()
    assert (told_domains(own, labels="reversed", known=KNOWN, seed=(7, 3)) == own).all()


def test_a_reversed_gradient_has_the_other_sign() -> None:
    content = torch.tensor([1.0, -2.0], requires_grad=True)
    value = reversed_gradient(content)
    assert value.tolist() == [1.0, -2.0]
    (value * torch.tensor([3.0, 5.0])).sum().backward()
    assert content.grad is not None
    assert content.grad.tolist() == [-3.0, -5.0]


@pytest.mark.parametrize("embedded", [True, False])
def test_the_head_against_plain_numpy(embedded: bool) -> None:
    torch.manual_seed(0)
    head = DomainHead(3, 2, embedded=embedded)
    content, domains = torch.randn(4, 3), torch.tensor([0, 1, 1, 0])
    weights = {name: value.numpy() for name, value in head.state_dict().items()}
    told = content.numpy() + (weights["embedding.weight"][domains.numpy()] if embedded else 0)
    feature = np.tanh(told @ weights["dense.weight"].T + weights["dense.bias"])
    logits = feature @ weights["classifier.weight"].T + weights["classifier.bias"]
    assert head.feature(content, domains).detach().numpy() == pytest.approx(feature, abs=1e-6)
    assert head(content, domains).detach().numpy() == pytest.approx(logits, abs=1e-6)


def test_gradients_of_the_head_against_differences() -> None:
    torch.manual_seed(0)
    head = DomainHead(3, 2, embedded=True).double()
    content = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: head(x, torch.tensor([0, 1])), content)


def test_reversal_trains_the_head_towards_and_the_model_away() -> None:
    """A step on the head's weights lowers the loss, the same step on the content raises it."""
    torch.manual_seed(0)
    head = DomainHead(3, 2, embedded=False)
    content, domains = torch.randn(8, 3, requires_grad=True), torch.tensor([0, 1] * 4)

    def loss(states: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(head(states, domains), domains)

    before = loss(content)
    before.backward()
    with torch.no_grad():
        assert content.grad is not None
        assert loss(content - 0.1 * content.grad) > before
        for parameter in head.parameters():
            assert parameter.grad is not None
            parameter -= 0.1 * parameter.grad
        assert loss(content) < before


def test_an_unseen_domain_is_the_mean_of_the_others() -> None:
    head = DomainHead(2, 3, embedded=True)
    assert head.embedding is not None
    with torch.no_grad():
        head.embedding.weight.copy_(torch.tensor([[9.0, 9.0], [1.0, 2.0], [3.0, 6.0]]))
    head.imagine(0)
    assert head.embedding.weight[0].tolist() == [2.0, 4.0]


def test_the_teachers_loss_on_paper() -> None:
    # Labels: log 2; domains: log 4 for even logits. 2 * (0.6931 + 0.5 * 1.3863) = 2.7726.
    labels = torch.tensor([[0.5, 0.5]], dtype=torch.float64).log()
    found = meta_teacher_loss(
        labels,
        torch.zeros(1, 4, dtype=torch.float64),
        torch.tensor([1]),
        torch.tensor([3]),
        torch.tensor([2.0], dtype=torch.float64),
        confusion=0.5,
    )
    assert found.item() == pytest.approx(2.772589, abs=1e-6)
