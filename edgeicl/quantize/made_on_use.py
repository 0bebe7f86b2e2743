"""Values by group that nobody holds: each is made when it is asked for, and dropped by who asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

T = TypeVar("T")


class MadeOnUse(Mapping[str, T]):
    """`make` is asked for the value of a name each time."""

    def __init__(self, names: Iterable[str], make: Callable[[str], T]) -> None:
        self._names = frozenset(names)
        self._make = make

    def __getitem__(self, name: str) -> T:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._names))

    def __contains__(self, name: object) -> bool:
        return name in self._names  # without making it

    def __len__(self) -> int:
        return len(self._names)
