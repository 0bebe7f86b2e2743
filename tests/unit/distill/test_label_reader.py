"""Three ways to the same scores: packed with a prefix cache, padded, and one plain full forward a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from transformers import OPTForCausalLM

from edgeicl.distill import scoring
from edgeicl.distill.label_batch import padded_batch
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.prefix_cache import encode_prefix
from edgeicl.distill.scoring import score_queries
from edgeicl.errors import DataError

ONE_TOKEN = [(40,), (50,)]
SEVERAL_TOKENS = [(40, 41, 42), (50,), (60, 61)]
QUERIES = [[5, 6, 7, 8], [9], [10, 11, 12, 13, 14, 15, 16], [5, 6], [7, 7, 7]]
BEFORE = [0, *range(100, 120)]
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def reader(opt: Callable[..., OPTForCausalLM]) -> LabelReader:
    return LabelReader(opt(seed=3))


@torch.inference_mode()
def plain(reader: LabelReader, prompt: Sequence[int], word: Sequence[int]) -> float:
    """log p(word | prompt) by the book: the whole text in one forward, no cache, no padding."""
    ids = [*prompt, *word]
    steps = reader.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    return sum(steps[len(prompt) + place - 1, token].item() for place, token in enumerate(word))


@pytest.mark.parametrize("tokens", [ONE_TOKEN, SEVERAL_TOKENS])
@pytest.mark.parametrize("before", [BEFORE, [0], []])
def test_packed_scores_equal_plain_forwards(
    reader: LabelReader,
    tokens: list[tuple[int, ...]],
    before: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(scoring._PACK_TOKENS, "cpu", 9)  # packs of several queries, and one too long for any
    expected = np.array([[plain(reader, [*before, *query], word) for word in tokens] for query in QUERIES])
    words = score_queries(reader, QUERIES, tokens, before=before, over="words")
    assert np.abs(words - expected).max() < TOLERANCE
    verbalizers = score_queries(reader, QUERIES, tokens, before=before)
    assert np.abs(np.exp(verbalizers).sum(-1) - 1).max() < 1e-5
    renormalized = expected - np.log(np.exp(expected).sum(-1, keepdims=True))
    assert np.abs(verbalizers - renormalized).max() < TOLERANCE


def test_a_mean_score_divides_by_the_words_tokens(reader: LabelReader) -> None:
    words = score_queries(reader, QUERIES, SEVERAL_TOKENS, before=BEFORE, over="words")
    means = words / [3, 1, 2]
    expected = means - np.logaddexp.reduce(means, axis=1, keepdims=True)
    mean_reader = LabelReader(reader.model, score="mean")
    found = score_queries(mean_reader, QUERIES, SEVERAL_TOKENS, before=BEFORE)
    assert np.abs(found - expected).max() < TOLERANCE
    # What fine-tuning maximizes is the text's probability, whatever labels are compared by.
    again = score_queries(mean_reader, QUERIES, SEVERAL_TOKENS, before=BEFORE, over="words")
    assert np.array_equal(again, words)


@pytest.mark.parametrize("tokens", [ONE_TOKEN, SEVERAL_TOKENS])
def test_padded_batches_with_a_prefix_equal_plain_forwards(
    reader: LabelReader, tokens: list[tuple[int, ...]]
) -> None:
    batch = padded_batch(QUERIES, tokens, reader.device)
    assert batch.passes[0].ids.shape[1] > min(map(len, QUERIES))
    with torch.inference_mode():
        scores = reader(batch, "words", encode_prefix(reader.model, BEFORE)).numpy()
    expected = [[plain(reader, [*BEFORE, *query], word) for word in tokens] for query in QUERIES]
    assert np.abs(scores - np.array(expected)).max() < TOLERANCE


def test_vocabulary_scores(reader: LabelReader) -> None:
    scores = score_queries(reader, QUERIES, ONE_TOKEN, before=BEFORE, over="vocabulary")
    assert scores.shape == (len(QUERIES), 264)
    assert scores[2, 50] == pytest.approx(plain(reader, [*BEFORE, *QUERIES[2]], [50]), abs=TOLERANCE)


def test_reading_at_the_padding_is_something_else(reader: LabelReader) -> None:
    """The negative control: the last column instead of the last token would be found out."""
    batch = padded_batch(QUERIES, ONE_TOKEN, reader.device)
    only = batch.passes[0]
    width = only.ids.shape[1]
    wrong = type(only)(only.ids, torch.arange(1, len(QUERIES) + 1)[:, None] * width - 1)
    with torch.inference_mode():
        right = reader(batch, "verbalizers").numpy()
        misread = reader(type(batch)((wrong,), batch.tokens), "verbalizers").numpy()
    padded = [len(query) < width for query in QUERIES]
    assert (np.abs(right - misread).max(-1) > 100 * TOLERANCE).tolist() == padded


def test_a_prefix_serves_many_batches_unchanged(reader: LabelReader) -> None:
    prefix = encode_prefix(reader.model, BEFORE)
    before = [keys.clone() for keys, _ in prefix.layers]
    batch = padded_batch(QUERIES, ONE_TOKEN, reader.device)
    with torch.inference_mode():
        first, second = (reader(batch, "verbalizers", prefix) for _ in range(2))
    assert torch.equal(first, second)
    assert all(torch.equal(old, keys) for old, (keys, _) in zip(before, prefix.layers, strict=True))


def test_prompts_longer_than_the_model_reads(reader: LabelReader) -> None:
    with pytest.raises(DataError, match=r"longest prompt has 607 tokens; .* reads 512"):
        score_queries(reader, QUERIES, ONE_TOKEN, before=[3] * 600)


class PackedHead(torch.nn.Linear):
    """As bitsandbytes has it: a Linear whose weight is packed, so that its rows are no words."""

    def __init__(self, head: torch.nn.Linear) -> None:
        super().__init__(1, 1, bias=False)
        self.whole = head
        self.weight = torch.nn.Parameter(head.weight.detach().flatten()[:, None], requires_grad=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.whole(hidden)
        return scores


def test_a_packed_head_is_not_cut_into_rows(opt: Callable[..., OPTForCausalLM]) -> None:
    expected = score_queries(LabelReader(opt(seed=3)), QUERIES, ONE_TOKEN, before=BEFORE)
    model = opt(seed=3)
    model.lm_head = PackedHead(model.lm_head)
    assert np.abs(score_queries(LabelReader(model), QUERIES, ONE_TOKEN, before=BEFORE) - expected).max() < 1e-5


def test_a_head_in_4_bits_gives_labels_what_it_gives_the_vocabulary(opt: Callable[..., OPTForCausalLM]) -> None:
    """With the library's own layer, on the CPU."""
    import bitsandbytes

    model = opt(seed=3, width=64)
    head = bitsandbytes.nn.Linear4bit(64, 264, bias=False, compute_dtype=torch.float32, quant_type="nf4")
    head.load_state_dict({"weight": model.lm_head.weight.detach().clone()})
    model.lm_head = head.to("cpu")
    assert model.lm_head.weight.shape != (264, 64)  # it is packed
    reader = LabelReader(model)
    labels = score_queries(reader, QUERIES, ONE_TOKEN, before=BEFORE)
    words = score_queries(reader, QUERIES, ONE_TOKEN, before=BEFORE, over="vocabulary")[:, [40, 50]]
    words -= np.log(np.exp(words).sum(-1, keepdims=True))
    assert np.abs(labels - words).max() < 1e-5
    exact = score_queries(LabelReader(opt(seed=3, width=64)), QUERIES, ONE_TOKEN, before=BEFORE)
    assert 1e-3 < np.abs(labels - exact).max() < 1  # negative control: rounded it was


def test_slices_have_the_bits_of_the_whole_where_packs_are_cut_alike(reader: LabelReader) -> None:
    whole = score_queries(reader, QUERIES[:2], ONE_TOKEN, before=BEFORE)
    slices = scoring.score_slices(reader, QUERIES, ONE_TOKEN, [(2, 5), (0, 2)], before=BEFORE)
    second, first = list(slices)
    assert np.array_equal(first, whole)
    assert second.shape == (3, 2)
