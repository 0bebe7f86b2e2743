from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from transformers import OPTForCausalLM

from edgeicl.distill.label_batch import padded_batch
from edgeicl.distill.label_training import train_on_labels
from edgeicl.distill.meta_kd.domain_head import DomainHead
from edgeicl.distill.meta_kd.meta_teacher import MetaTeacher, train_meta_teacher
from edgeicl.distill.meta_kd.states import StateReader
from edgeicl.distill.objective import cross_entropy
from edgeicl.distill.trainer import TrainingSettings
from tests.trained_weights import ROUNDING, relative_difference

ROWS = [[0, 9, 8, 7], [0, 5, 4], [0, 3, 3, 2], [0, 11, 12], [0, 20], [0, 21, 22]]
TOKENS = [(40,), (41,)]
GOLD = np.array([0, 1, 1, 0, 0, 1])
DOMAINS = np.array([0, 0, 1, 1, 2, 2])
SETTINGS = TrainingSettings(learning_rate=1e-3, epochs=6, batch_size=3, checkpoint_every_steps=5)
Opt = Callable[..., OPTForCausalLM]


def trained(opt: Opt, **changed: object) -> tuple[StateReader, DomainHead, list[float]]:
    torch.manual_seed(0)
    reader, head = StateReader(opt(seed=1)), DomainHead(32, 3, embedded=True)
    arguments = {
        "rows": ROWS,
        "tokens": TOKENS,
        "gold": GOLD,
        "domains": DOMAINS,
        "weights": np.ones(6, np.float32),
        "confusion": 0.5,
        "confusion_labels": "wrong",
        "skip": 1,
        "settings": SETTINGS,
        "seed": 0,
    }
    losses = train_meta_teacher(reader, head, **arguments | changed)  # type: ignore[arg-type]
    return reader, head, losses


@pytest.mark.parametrize("tokens", [TOKENS, [(40, 42), (41,)]])
def test_forward_against_plain_transformers(opt: Opt, tokens: list[tuple[int, ...]]) -> None:
    """Also where a label has several tokens: the head reads the prompt's states alone."""
    torch.manual_seed(0)
    model, head = opt(seed=1), DomainHead(32, 3, embedded=True)
    teacher = MetaTeacher(StateReader(model), head, skip=1)
    with torch.no_grad():
        labels, logits = teacher(padded_batch(ROWS, tokens, model.device), torch.from_numpy(DOMAINS))
        for row, ids in enumerate(ROWS):
            content = model.base_model(torch.tensor([ids])).last_hidden_state[0, 1:].mean(0)
            feature = torch.tanh(head.dense(content + head.embedding.weight[DOMAINS[row]]))  # type: ignore[union-attr]
            assert logits[row].numpy() == pytest.approx(head.classifier(feature).numpy(), abs=1e-5)
            words = []
            for word in tokens:
                steps = model(torch.tensor([[*ids, *word[:-1]]])).logits[0, len(ids) - 1 :].log_softmax(-1)
                words.append(sum(float(step[token]) for step, token in zip(steps, word, strict=True)))
            expected = torch.tensor(words).log_softmax(-1)
            assert labels[row].numpy() == pytest.approx(expected.numpy(), abs=1e-4)


def test_weights_count_against_each_other(opt: Opt) -> None:
    weights = np.array([1, 2, 3, 1, 2, 3], np.float32)
    assert trained(opt, weights=weights)[2] == pytest.approx(trained(opt, weights=10 * weights)[2], rel=1e-5)
    assert trained(opt, weights=weights)[2] != pytest.approx(trained(opt)[2], rel=1e-3)  # negative control


def test_one_domain_and_even_weights_are_plain_fine_tuning(opt: Opt) -> None:
    """A head over one domain is always right: its loss is 0, and so are its gradients."""
    torch.manual_seed(0)
    reader, head = StateReader(opt(seed=1)), DomainHead(32, 1, embedded=True)
    losses = train_meta_teacher(
        reader,
        head,
        rows=ROWS,
        tokens=TOKENS,
        gold=GOLD,
        domains=np.zeros(6, np.int64),
        weights=np.full(6, 0.3, np.float32),
        confusion=0.5,
        confusion_labels="wrong",
        skip=1,
        settings=SETTINGS,
        seed=0,
    )
    plain, gold = StateReader(opt(seed=1)), torch.from_numpy(GOLD)
    expected = train_on_labels(
        plain,
        rows=ROWS,
        tokens=TOKENS,
        over="verbalizers",
        loss=lambda labels, places: cross_entropy(labels, gold[places]),
        settings=SETTINGS,
        seed=0,
    )
    assert losses == pytest.approx(expected, rel=1e-5)
    start, ours, theirs = (model.state_dict() for model in (opt(seed=1), reader.model, plain.model))
    assert relative_difference(ours, theirs, start) < ROUNDING


def test_a_domain_it_never_saw_gets_the_others_embedding(opt: Opt) -> None:
    seen = DOMAINS > 0
    _, head, _ = trained(
        opt,
        rows=[row for row, kept in zip(ROWS, seen, strict=True) if kept],
        gold=GOLD[seen],
        domains=DOMAINS[seen],
        weights=np.ones(4, np.float32),
    )
    assert head.embedding is not None
    assert torch.allclose(head.embedding.weight[0], head.embedding.weight[1:].mean(0))


def test_the_first_loss_by_hand(opt: Opt) -> None:
    """All examples in one batch, domains told as they are: cross-entropies of the untrained model and head."""
    torch.manual_seed(0)
    model, head = opt(seed=1), DomainHead(32, 3, embedded=True)
    start = MetaTeacher(StateReader(model), head, skip=1)
    with torch.no_grad():
        labels, logits = start(padded_batch(ROWS, TOKENS, model.device), torch.from_numpy(DOMAINS))
    expected = F.nll_loss(labels, torch.from_numpy(GOLD)) + 0.5 * F.cross_entropy(
        logits, torch.from_numpy(DOMAINS)
    )
    whole = TrainingSettings(**vars(SETTINGS) | {"batch_size": 6, "epochs": 1})
    losses = trained(opt, settings=whole, confusion_labels="reversed")[2]
    assert losses[0] == pytest.approx(float(expected), rel=1e-5)
