from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from transformers import OPTForCausalLM

from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.label_training import train_on_labels
from edgeicl.distill.objective import reverse_kl
from edgeicl.distill.on_policy import end_tokens, on_policy_loss
from edgeicl.distill.sampling import sample
from tests.unit.distill.test_trainer import settings

LEADING = [2]
QUERIES = [[20, 21, 22], [30, 31, 32, 33, 34], [40]]
CONTEXTS = [[2, 50, 51, 52, 53, 54], [2, 60, 61, 62]]
TOKENS = 4


def draws(rows: int, tokens: int, *, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((rows, tokens))


def test_reverse_kl_on_paper() -> None:
    """1/2 log(1/2 / 3/4) + 1/2 log(1/2 / 1/4) = 0.1438 nats."""
    student, teacher = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.75, 0.25]).log()
    assert reverse_kl(student, teacher).item() == pytest.approx(0.143841, abs=1e-6)
    assert reverse_kl(teacher, student).item() == pytest.approx(0.130812, abs=1e-6)


def test_what_is_sampled_does_not_depend_on_the_batch(opt: Callable[..., OPTForCausalLM]) -> None:
    model, drawn = opt(seed=3), draws(3, TOKENS)
    together = sample(model, QUERIES, drawn, temperature=1.0)
    alone = [sample(model, [row], drawn[[n]], temperature=1.0)[0] for n, row in enumerate(QUERIES)]
    assert torch.equal(together, torch.stack(alone))
    assert not torch.equal(together, sample(model, QUERIES, draws(3, TOKENS, seed=1), temperature=1.0))


def test_samples_follow_the_model_without_a_cache(opt: Callable[..., OPTForCausalLM]) -> None:
    """Second implementation: whole texts, one at a time, numpy's own search in the cumulative sum."""
    model, drawn = opt(seed=3), draws(3, TOKENS)
    found = sample(model, QUERIES, drawn, temperature=0.7)
    for row, uniform, tokens in zip(QUERIES, drawn, found, strict=True):
        text = list(row)
        for draw in uniform:
            with torch.no_grad():
                logits = model(torch.tensor([text])).logits[0, -1].double().numpy() / 0.7
            likelihood = np.exp(logits - logits.max())
            text.append(int(np.searchsorted((likelihood / likelihood.sum()).cumsum(), draw, side="right")))
        assert text[len(row) :] == tokens.tolist()


def test_frequencies_are_the_models_probabilities(opt: Callable[..., OPTForCausalLM]) -> None:
    model = opt(seed=3)
    with torch.no_grad():
        likelihood = model(torch.tensor([QUERIES[0]])).logits[0, -1].softmax(-1)
    count = 4000
    found = Counter(sample(model, [QUERIES[0]] * count, draws(count, 1), temperature=1.0)[:, 0].tolist())
    for token in likelihood.topk(5).indices.tolist():
        share = likelihood[token].item()
        assert found[token] / count == pytest.approx(share, abs=4 * (share * (1 - share) / count) ** 0.5)


def written_out(
    student: OPTForCausalLM, teacher: OPTForCausalLM, text: Sequence[int], query: Sequence[int]
) -> list[float]:
    """Reverse KL at each token of `text` after `query`: full prompts, token by token, float64."""
    found = []
    for place in range(len(text)):
        said = [*query, *text[:place]]
        with torch.no_grad():
            ours = student(torch.tensor([[*LEADING, *said]])).logits[0, -1].double().softmax(-1)
            theirs = torch.stack(
                [
                    teacher(torch.tensor([[*before, *said]])).logits[0, -1].double().softmax(-1)
                    for before in CONTEXTS
                ]
            ).mean(0)
        found.append(float((ours * (ours / theirs).log()).sum()))
    return found


def test_the_loss_by_a_second_implementation(opt: Callable[..., OPTForCausalLM]) -> None:
    student, teacher = opt(seed=3), opt(seed=4)
    reader = LabelReader(student)

    def values(ends: list[int], examples: list[int], step: int = 5) -> list[float]:
        loss = on_policy_loss(
            reader,
            LabelReader(teacher),
            queries=QUERIES,
            leading=LEADING,
            contexts=CONTEXTS,
            tokens=TOKENS,
            temperature=1.0,
            end_tokens=ends,
            weight=2.0,
            seed=1,
        )
        return loss(reader, np.array(examples), step).tolist()

    found = values([], [0, 1, 2])
    drawn = np.stack([np.random.default_rng([1, 5, n]).random(TOKENS) for n in range(3)])
    texts = sample(student, [[*LEADING, *query] for query in QUERIES], drawn, temperature=1.0).tolist()
    each = [written_out(student, teacher, text, query) for text, query in zip(texts, QUERIES, strict=True)]
    assert found == pytest.approx([2 * np.mean(one) for one in each], abs=1e-4)
    # An end token ends what counts, itself included.
    assert values([texts[1][1], 262], [1])[0] == pytest.approx(2 * np.mean(each[1][:2]), abs=1e-4)
    # Who shares the batch changes nothing; another step draws other texts.
    assert values([], [2, 1])[::-1] == pytest.approx(found[1:], abs=1e-5)
    assert values([], [0, 1, 2], step=6) != pytest.approx(found, abs=1e-3)


def test_no_loss_where_the_teacher_is_the_student(opt: Callable[..., OPTForCausalLM]) -> None:
    reader = LabelReader(opt(seed=3))
    loss = on_policy_loss(
        reader,
        LabelReader(opt(seed=3)),
        queries=QUERIES,
        leading=LEADING,
        contexts=[[*LEADING, 70]],
        tokens=TOKENS,
        temperature=1.0,
        end_tokens=[],
        weight=1.0,
        seed=0,
    )
    shown = LabelReader(opt(seed=3))
    assert loss(reader, np.arange(3), 0).min() > 0.01  # it sees a context that the student does not
    same = on_policy_loss(
        reader,
        shown,
        queries=[[*LEADING, *query] for query in QUERIES],
        leading=[70],
        contexts=[[70]],
        tokens=TOKENS,
        temperature=1.0,
        end_tokens=[],
        weight=1.0,
        seed=0,
    )
    assert same(reader, np.arange(3), 0).abs().max() < 1e-5


def test_training_on_it_comes_closer_to_the_teacher(opt: Callable[..., OPTForCausalLM]) -> None:
    reader = LabelReader(opt(seed=3))
    queries = [[20 + n, 21 + n, 22] for n in range(16)]
    losses = train_on_labels(
        reader,
        rows=[[*LEADING, *query] for query in queries],
        tokens=[(40,), (50,)],
        over="verbalizers",
        loss=None,
        further=[
            on_policy_loss(
                reader,
                LabelReader(opt(seed=4)),
                queries=queries,
                leading=LEADING,
                contexts=CONTEXTS[:1],
                tokens=2,
                temperature=1.0,
                end_tokens=[],
                weight=1.0,
                seed=0,
            )
        ],
        settings=settings(epochs=20),
        seed=0,
    )
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])


def test_none_one_or_several_tokens_end_a_text() -> None:
    assert [end_tokens(configured) for configured in (None, 2, [2, 3])] == [[], [2], [2, 3]]
