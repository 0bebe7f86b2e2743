"""Tests run side by side (pytest-xdist), but one marked `alone`, which measures the computer."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.side_by_side import named_after_sets, the_computer


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Holds the computer for one test, its fixtures included."""
    with the_computer(alone=item.get_closest_marker("alone") is not None):
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Other processes would find other tests."""
    if named := named_after_sets(items):
        raise pytest.UsageError("lists, not sets, where a test is named after them:\n" + "\n".join(named))
