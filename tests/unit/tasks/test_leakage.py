"""Texts that are the same but for case, spaces and forms of characters."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from edgeicl.tasks.example import Example
from edgeicl.tasks.leakage import normalized, shared_columns, text_key


def test_on_paper() -> None:
    assert normalized("  The\tFULL\u00a0Moon\n") == "the full moon"
    assert normalized("\ufb01ne") == normalized("FINE") == "fine"
    assert normalized("cafe\u0301") == normalized("caf\u00e9")
    assert normalized("is n't") != normalized("isn't")  # words are not read


@given(st.text(max_size=30))
def test_it_settles_and_forgets_only_form(text: str) -> None:
    once = normalized(text)
    assert normalized(f"  {text} \n") == once
    assert normalized(unicodedata.normalize("NFD", text)) == normalized(unicodedata.normalize("NFC", text))


def test_the_pattern_decides_what_counts() -> None:
    first = Example({"a": "x", "b": "1"}, "yes")
    second = Example({"a": "X ", "b": "2"}, "no")
    assert text_key("{a}", first) == text_key("{a}", second)
    assert text_key("{a} {b}", first) != text_key("{a} {b}", second)
    assert shared_columns("{a} {b}", [first, first], [second]) == {"a": 2}
    assert shared_columns("{a}", [first], [second]) == {}
