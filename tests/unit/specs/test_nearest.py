"""The name that was probably meant."""

from __future__ import annotations

import pytest

from edgeicl.specs.nearest import nearest, one_of


@pytest.mark.parametrize(
    ("found", "meant"),
    [("cuont", "count"), ("Count", "count"), ("seed", "seeds"), ("xyz", None), ("", None)],
)
def test_nearest(found: str, meant: str | None) -> None:
    assert nearest(found, ["count", "seeds", "balanced"]) == meant


def test_one_of_lists_a_few_and_counts_the_rest() -> None:
    assert one_of("b7", [f"a{i}" for i in range(5)], shown=3) == "allowed: a0, a1, a2 and 2 more"
    assert one_of("x", []) == "nothing is allowed here"
