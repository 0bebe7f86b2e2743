"""The losses of MEND against a second implementation, and the vectors against what they stand for."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, OPTForCausalLM

from edgeicl.distill.frozen_reading import Query, after_tokens, after_vectors, query_batch
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.mend_training import mend_loss
from edgeicl.distill.meta_training import Episode
from edgeicl.distill.scoring import score_queries

EPISODES = [
    Episode([0, 20, 21, 22], [Query((30, 31, 32), (40, 41)), Query((33,), (50,))]),
    Episode([0, 23, 24, 25, 26, 27], [Query((34, 35), (50,)), Query((36, 37, 38, 39), (40, 41))]),
]
CPU = torch.device("cpu")


def of_size(episodes: list[Episode]) -> list[Query]:
    return [query for episode in episodes for query in episode.queries]


def embedded(model: OPTForCausalLM, ids: list[int]) -> torch.Tensor:
    return model.get_input_embeddings()(torch.tensor(ids))


def plainly(model: OPTForCausalLM, vectors: torch.Tensor, *, kl: float, ce: float, places: str) -> list[float]:
    """Query by query, one whole prompt at a time, in numpy: the formulas of the paper's section 3."""
    losses = []
    for episode, before in zip(EPISODES, vectors, strict=True):
        of_queries = []
        for query in episode.queries:
            asked = [*query.tokens, *query.answer[:-1]]
            with torch.no_grad():
                compressed = model(inputs_embeds=torch.cat([before, embedded(model, asked)])[None]).logits[0]
                whole = model(input_ids=torch.tensor([[*episode.context, *asked]])).logits[0]
            student, teacher = (logits[-len(asked) :].double().numpy() for logits in (compressed, whole))
            student, teacher = (
                rows - np.log(np.exp(rows).sum(-1, keepdims=True)) for rows in (student, teacher)
            )
            first = len(asked) - len(query.answer)
            at = range(first if places == "label" else 0, len(asked))
            divergence = np.mean([np.sum(np.exp(teacher[t]) * (teacher[t] - student[t])) for t in at])
            surprise = -sum(student[first + n, token] for n, token in enumerate(query.answer))
            of_queries.append(kl * divergence + ce * surprise)
        losses.append(float(np.mean(of_queries)))
    return losses


@pytest.mark.parametrize("places", ["query", "label"])
@pytest.mark.parametrize(("kl", "ce"), [(1.0, 0.0), (0.5, 1.0), (0.0, 1.0)])
def test_the_loss_equals_a_second_implementation(
    opt: Callable[..., OPTForCausalLM], kl: float, ce: float, places: str
) -> None:
    model = opt(seed=1)
    vectors = torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0))
    found = mend_loss(vectors, model, EPISODES, kl=kl, ce=ce, places=places)  # type: ignore[arg-type]
    expected = plainly(model, vectors, kl=kl, ce=ce, places=places)
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    # Negative control: the two sets' vectors exchanged.
    assert plainly(model, vectors.flip(0), kl=kl, ce=ce, places=places) != pytest.approx(expected, rel=1e-3)


def models() -> dict[str, Callable[[], torch.nn.Module]]:
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "initializer_range": 0.2}
    return {
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=16, n_layer=2, n_head=2, **sizes)),
        "llama": lambda: LlamaForCausalLM(
            LlamaConfig(
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                **sizes,
            )
        ),
    }


@pytest.mark.parametrize("name", ["opt", "gpt2", "llama"])
def test_vectors_that_are_the_demonstrations_read_like_them(
    opt: Callable[..., OPTForCausalLM], name: str
) -> None:
    """l = P and the identity for a hypernetwork: positions, mask and what is read are those of plain text."""
    model = opt(seed=2) if name == "opt" else models()[name]().eval()
    episode = EPISODES[1]
    batch = query_batch(episode.queries, "query", CPU)
    vectors = embedded(model, episode.context)[None]
    with torch.no_grad():
        behind_vectors = after_vectors(model, vectors, batch)
        behind_tokens = after_tokens(model, [episode.context], batch)
        elsewhere = after_vectors(model, vectors[:, :-1], batch)
    assert torch.allclose(behind_vectors, behind_tokens, atol=1e-5)
    assert not torch.allclose(elsewhere, behind_tokens, atol=1e-2)
    loss = mend_loss(vectors, model, [episode], kl=1.0, ce=0.0, places="query")
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


def test_scores_behind_vectors_are_those_behind_the_same_tokens(opt: Callable[..., OPTForCausalLM]) -> None:
    model = opt(seed=3)
    context = EPISODES[0].context
    vectors = embedded(model, context).detach().numpy()
    queries, tokens = [[30, 31], [32, 33, 34]], [(40, 41), (50,)]
    reader = LabelReader(model)
    behind_tokens = score_queries(reader, queries, tokens, before=context)
    np.testing.assert_allclose(score_queries(reader, queries, tokens, before=vectors), behind_tokens, atol=1e-5)
    one = score_queries(reader, queries, tokens, before=vectors[:1])
    np.testing.assert_allclose(one, score_queries(reader, queries, tokens, before=context[:1]), atol=1e-5)
    assert np.abs(one - behind_tokens).max() > 1e-3
