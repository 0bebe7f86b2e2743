"""Tests run side by side (pytest-xdist), but one marked `alone`, which measures the computer."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.side_by_side import the_computer


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Holds the computer for one test, its fixtures included."""
    with the_computer(alone=item.get_closest_marker("alone") is not None):
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A set in a test's name is written in another order by every process, which then finds other tests."""
    named = [
        item.nodeid
        for item in items
        if isinstance(item, pytest.Function)
        for value in getattr(getattr(item, "callspec", None), "params", {}).values()
        if isinstance(value, (set, frozenset)) and len(value) > 1 and str(value) in item.nodeid
    ]
    if named:
        raise pytest.UsageError("lists, not sets, where a test is named after them:\n" + "\n".join(named))
