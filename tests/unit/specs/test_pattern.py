"""Columns of a pattern: plain names in braces, each told once."""

from __future__ import annotations

import pytest

from edgeicl.specs.pattern import pattern_columns


def test_columns_in_order_each_once() -> None:
    assert pattern_columns("{b} and {a}, {b} again and {{c}}") == ("b", "a")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("{premise!r}", "holds '{premise}'; expected a column's plain name"),
        ("{premise:>5}", "holds '{premise}'; expected a column's plain name"),
        ("{}", "holds '{}'; expected a column's plain name"),
        ("{a.b}", "holds '{a.b}'; expected a column's plain name"),
        ("{a b}", "holds '{a b}'; expected a column's plain name"),
        ("{premise", "can't be read: expected '}' before end of string; expected {{ and }} for braces"),
        ("{{premise}}", "names no column; expected at least one, such as {premise}"),
        ("", "names no column"),
    ],
)
def test_what_names_no_column_is_refused(pattern: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"expected") as caught:
        pattern_columns(pattern)
    assert said in str(caught.value)
