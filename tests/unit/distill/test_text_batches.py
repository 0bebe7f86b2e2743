from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from edgeicl.distill.text_batches import TextBatches, label_words, texts_of
from edgeicl.errors import DataError
from edgeicl.tasks.byte_level_tokenizer import learn_tokenizer

TOKENIZER = learn_tokenizer(["the red house and the blue door were open all day long"] * 20, vocabulary=300)
QUERIES = [[[270, 271], [272]], [[273, 274, 275]], [[276]]]


def batches(*, positions: int = 64, documents: Sequence[Sequence[int]] = ((5, 6, 7) * 50,) * 8) -> TextBatches:
    return TextBatches(
        TOKENIZER,
        [np.array(document, np.int32) for document in documents],
        [QUERIES],
        separator="\n",
        positions=positions,
        around=([8], [9]),
    )


def test_label_words_are_whole_words_of_lower_case_letters() -> None:
    words = [TOKENIZER.id_to_token(number) for number in label_words(TOKENIZER)]
    assert "Ġhouse" in words
    assert all(word[0] == "Ġ" and word[1:].isalpha() and len(word) > 3 for word in words)


def test_an_episode_reads_its_words_where_it_says() -> None:
    drawn = batches()
    one = drawn.episode(np.random.default_rng(0), QUERIES, 9)
    assert one.ids[0] == 2
    assert len(one.answers) == 9
    assert len(set(one.words)) == 3
    for answer in one.answers:
        label = one.words.index(one.ids[answer])
        assert any(list(one.ids[answer - len(query) : answer]) == query for query in QUERIES[label])
        assert one.ids[answer + 1] == TOKENIZER.encode("\n", add_special_tokens=False).ids[0]


def test_words_are_new_in_every_episode_unless_they_are_fixed() -> None:
    drawn = batches()
    words = {drawn.episode(np.random.default_rng(n), QUERIES, 2).words for n in range(20)}
    assert len(words) > 15
    fixed = drawn.own_words[0]
    assert len(set(fixed)) == 3
    assert drawn.episode(np.random.default_rng(1), QUERIES, 2, fixed).words == tuple(fixed)


def test_an_episode_ends_where_the_positions_do() -> None:
    one = batches(positions=12).episode(np.random.default_rng(0), QUERIES, 50)
    assert len(one.ids) <= 12
    assert one.answers[-1] < 12


def test_a_batch_masks_padding_and_marks_the_token_before_each_answer() -> None:
    drawn = batches()
    rng = np.random.default_rng(3)
    some = [drawn.episode(rng, QUERIES, count) for count in (1, 4)]
    texts = texts_of(some)
    for row, one in enumerate(some):
        assert texts.token_mask[row].sum() == len(one.ids)
        assert (np.flatnonzero(texts.answer_mask[row]) + 1).tolist() == list(one.answers)


def test_plain_text_starts_as_a_text_does_and_asks_nothing() -> None:
    texts = batches().plain(np.random.default_rng(0), tokens_per_step=100, text_tokens=20)
    assert texts.tokens.shape == (5, 20)
    assert (texts.tokens[:, 0] == 2).all()
    assert not texts.answer_mask.any()


def test_the_classes_of_a_document_episode_are_documents() -> None:
    documents = [[20 + n] * 200 for n in range(6)]
    drawn = batches(documents=documents, positions=300)
    texts = drawn.document_episodes(
        np.random.default_rng(0), tokens_per_step=200, examples=6, passage_tokens=4, classes=3
    )
    for tokens, answers in zip(texts.tokens, texts.answer_mask, strict=True):
        word_of = {}
        for place in np.flatnonzero(answers):
            passage = tuple(tokens[place - 4 : place])
            assert tokens[place] == 9
            assert len(set(passage)) == 1
            assert word_of.setdefault(passage[0], tokens[place + 1]) == tokens[place + 1]


def test_documents_too_short_for_passages_are_told() -> None:
    with pytest.raises(DataError, match="document episodes need 3 documents of at least 16 tokens; found 0"):
        batches(documents=[[5] * 10] * 9).document_episodes(
            np.random.default_rng(0), tokens_per_step=200, examples=6, passage_tokens=4, classes=3
        )
