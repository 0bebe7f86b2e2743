from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from edgeicl.errors import DataError
from edgeicl.numerics.padding import right_padded
from edgeicl.tasks.demonstrations import choose
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import (
    PromptEncoder,
    demonstration_text,
    leading_tokens,
    query_text,
)
from edgeicl.tasks.verbalizer import verbalizer_tokens
from tests.unit.byte_tokenizer import byte_tokenizer

PATTERN = "{premise} question: {hypothesis} Yes or No? answer:"
WORDS = {"entailment": " Yes", "contradiction": " No"}
SHARED_TOKENIZER = Path(__file__).parents[4] / "shared" / "data" / "tokenizer_opt"


def example(premise: str, hypothesis: str, label: str = "entailment") -> Example:
    return Example({"premise": premise, "hypothesis": hypothesis}, label, "a.csv line 7")


def encoder(tokenizer: Tokenizer) -> PromptEncoder:
    return PromptEncoder(tokenizer, pattern=PATTERN, verbalizers=WORDS, separator="\n\n")


def test_texts() -> None:
    assert query_text(PATTERN, example("It rains", "It pours")) == (
        "It rains question: It pours Yes or No? answer:"
    )
    assert demonstration_text("{premise}:", example("a", "b", "contradiction"), WORDS) == "a: No"


def test_unknown_column_is_named_with_the_nearest() -> None:
    with pytest.raises(
        DataError, match=r"a\.csv line 7: found no text in column 'premis'.*did you mean 'premise'"
    ):
        query_text("{premis}", example("a", "b"))


def test_doubled_braces_are_text() -> None:
    assert query_text("{{{premise}}}", example("a", "b")) == "{a}"


@given(st.text(max_size=20), st.text(max_size=20))
def test_a_query_has_the_same_ids_with_and_without_demonstrations(premise: str, hypothesis: str) -> None:
    encode = encoder(byte_tokenizer())
    (query,) = encode.queries([example(premise, hypothesis)])
    prefix = encode.demonstrations([example("x", "y", "contradiction")])
    assert prefix[0] == encode.leading[0] == 0
    assert prefix.count(0) == 1
    whole = [*prefix, *query]
    assert whole[-len(query) :] == query
    # The label is read at the last token, and the answer of the demonstration stands where it was read.
    shown = encode.queries([example("x", "y")])[0]
    assert prefix[1 + len(shown)] == encode.tokens["contradiction"][0]


def test_demonstrations_decode_to_the_text_an_app_would_write() -> None:
    tokenizer = byte_tokenizer()
    shown = [example("a", "b"), example("c", "d", "contradiction")]
    text = "".join(demonstration_text(PATTERN, one, WORDS) + "\n\n" for one in shown)
    ids = encoder(tokenizer).demonstrations(shown)
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert ids == tokenizer.encode(text).ids


def test_no_leading_token_where_the_tokenizer_has_none() -> None:
    assert leading_tokens(byte_tokenizer()) == (0,)
    assert leading_tokens(byte_tokenizer(leading=False)) == ()


def test_padding_is_at_the_right() -> None:
    ids, lengths = right_padded([[5, 6, 7], [8]], padding_id=9)
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert lengths.tolist() == [3, 1]


def test_verbalizers_of_one_and_of_several_tokens() -> None:
    tokens = verbalizer_tokens({"a": " Yes", "b": " No", "c": "maybe"}, byte_tokenizer())
    assert [len(ids) for ids in tokens.values()] == [1, 1, 5]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"b": "Yesterday", "a": "Yes"}, r"'Yes' \(a\) is the start of 'Yesterday' \(b\): \['Y'"),
        ({"a": "Iran", "b": "Oslo", "c": "Iranian"}, r"'Iran' \(a\) is the start of 'Iranian' \(c\)"),
    ],
)
def test_words_that_are_the_start_of_others_are_refused(words: dict[str, str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        verbalizer_tokens(words, byte_tokenizer())
    marked = {label: f"{word}." for label, word in words.items()}
    assert len(verbalizer_tokens(marked, byte_tokenizer())) == len(words)


def test_words_may_share_their_first_tokens() -> None:
    assert len(verbalizer_tokens({"a": "Yes", "b": "Yonder"}, byte_tokenizer())) == 2


def test_unknown_words_are_refused() -> None:
    tokenizer = Tokenizer(models.WordLevel({"<unk>": 0, "Yes": 1}, unk_token="<unk>"))
    with pytest.raises(DataError, match=r"'No' \(b\) becomes the tokens \['<unk>'\], which read '<unk>'"):
        verbalizer_tokens({"a": "Yes", "b": "No"}, tokenizer)


@given(st.integers(1, 20), st.integers(0, 1000))
def test_balanced_demonstrations(count: int, seed: int) -> None:
    pool = [
        example(str(i), "x", label) for i in range(30) for label in ("entailment", "contradiction", "other")
    ]
    labels = ["entailment", "contradiction", "other"]
    chosen = choose(pool, count=count, balanced=True, seed=seed, labels=labels)
    assert len(chosen) == len({one.columns["premise"] + one.label for one in chosen}) == count
    counts = [sum(one.label == label for one in chosen) for label in labels]
    assert max(counts) - min(counts) <= 1
    assert chosen == choose(pool, count=count, balanced=True, seed=seed, labels=labels)


def test_seeds_choose_differently_and_shortage_has_figures() -> None:
    pool = [example(str(i), "x", "entailment" if i else "contradiction") for i in range(40)]
    labels = ["entailment", "contradiction"]
    first, second = (choose(pool, count=8, balanced=False, seed=seed, labels=labels) for seed in (0, 1))
    assert first != second
    with pytest.raises(DataError, match="contradiction: 1 of 4"):
        choose(pool, count=8, balanced=True, seed=0, labels=labels)
    with pytest.raises(DataError, match="41 demonstrations were asked for; found 40"):
        choose(pool, count=41, balanced=False, seed=0, labels=labels)


@pytest.mark.skipif(not SHARED_TOKENIZER.exists(), reason="OPT's tokenizer (shared/data) is absent")
def test_opt_words_are_one_token() -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(SHARED_TOKENIZER).backend_tokenizer
    assert verbalizer_tokens(WORDS, tokenizer) == {"entailment": (3216,), "contradiction": (440,)}
    assert leading_tokens(tokenizer) == (2,)
