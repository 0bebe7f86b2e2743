"""Processes that run tests of one checkout at the same time: their locks, and the names of their tests."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# Any two files would do; these are there.
_ROOM = Path(__file__)
_DOOR = Path(__file__).with_name("conftest.py")


@contextmanager
def the_computer(*, alone: bool) -> Iterator[None]:
    """Shared with other processes, or alone: who waits for that holds the door, so that no more come in."""
    with _ROOM.open() as room:
        with _DOOR.open() as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(room, fcntl.LOCK_UN)  # a forked child may have it too


def named_after_sets(items: Iterable[Any]) -> list[str]:
    """Names of tests that a set of several is written in: every process writes it in an order of its own."""
    return [
        item.nodeid
        for item in items
        for value in getattr(getattr(item, "callspec", None), "params", {}).values()
        if any(len(one) > 1 and str(one) in item.nodeid for one in _sets(value))
    ]


def _sets(value: Any) -> Iterator[set[Any] | frozenset[Any]]:
    if isinstance(value, (set, frozenset)):
        yield value
    elif isinstance(value, dict):
        yield from _sets([*value.values()])
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _sets(one)
