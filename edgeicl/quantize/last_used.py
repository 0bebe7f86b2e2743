"""Values that took long to make: those that were asked for last are kept, up to a size."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class LastUsed(Generic[T]):
    """Keeps values of at most `most_bytes` in all."""

    def __init__(self, most_bytes: int, *, bytes_of: Callable[[T], int]) -> None:
        self._room, self._bytes_of = most_bytes, bytes_of
        self._kept: OrderedDict[Hashable, T] = OrderedDict()

    def __call__(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of `key`, made unless it is still there."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        value = make()
        self._kept[key] = value
        self._room -= self._bytes_of(value)
        while self._room < 0:
            _, oldest = self._kept.popitem(last=False)
            self._room += self._bytes_of(oldest)
        return value
