"""Documents in which evaluation examples stand are left out, others are not."""

from __future__ import annotations

from edgeicl.tasks.example import Example
from edgeicl.tasks.text_leakage import without_evaluated

LONG = "One two three, four five six seven eight nine."
PAIR = Example({"premise": LONG, "hypothesis": "It rains."}, "yes")
SHORT = Example({"premise": "one two three four five six seven", "hypothesis": "x"}, "yes")
PATTERN = "{premise} {hypothesis}"


def test_an_example_word_by_word_is_found_whatever_stands_around_it() -> None:
    holds = ["A. it RAINS; then: one two three four\nfive SIX seven eight nine! B", f"It rains {LONG}"]
    misses = [
        f"{LONG} It snows.",  # one column alone
        "one two three four five six seven eight. It rains.",  # the premise's end is missing
        "one two three four five six seven eight nineteen. It rains.",
        "",
    ]
    kept, (told,) = without_evaluated([*holds, *misses], [PAIR], pattern=PATTERN, where="distill.text")
    assert kept == misses
    assert (told.where, told.asked, told.got) == ("distill.text", "6", "4")


def test_short_examples_are_not_looked_for() -> None:
    documents = ["one two three four five six seven x"]
    assert without_evaluated(documents, [SHORT], pattern=PATTERN, where="") == (documents, ())


def test_two_examples_that_begin_alike() -> None:
    other = Example({"premise": f"{LONG} Ten.", "hypothesis": "It rains."}, "no")
    documents = [f"{LONG} It rains."]
    assert without_evaluated(documents, [other], pattern=PATTERN, where="") == (documents, ())
    assert without_evaluated(documents, [other, PAIR], pattern=PATTERN, where="")[0] == []
