"""Processes whose caches are different folders are told before any work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeicl.errors import DataError
from edgeicl.shared_cache import require_shared_cache
from edgeicl.store import SingleProcess


class OneOfTwo(SingleProcess):
    """A process of a launch of two whose other process answers `seen`."""

    count = 2

    def __init__(self, *, writer: bool, seen: bool) -> None:
        self.is_writer, self.index, self._seen = writer, 0 if writer else 1, seen

    def from_writer(self, value: Any) -> Any:
        return "mark"

    def from_all(self, value: Any) -> list[Any]:
        other = ("there", self._seen)
        return [value, other] if self.is_writer else [("there", True), value]


def test_one_folder_passes_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    require_shared_cache(tmp_path, OneOfTwo(writer=True, seen=True))
    assert list(tmp_path.iterdir()) == []
    require_shared_cache(tmp_path / "never made", SingleProcess())


def test_both_processes_say_which_one_is_blind(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not the same folder for all .* process 1 on there can't see"):
        require_shared_cache(tmp_path, OneOfTwo(writer=True, seen=False))
    with pytest.raises(DataError, match=r"process 1 on \S+ can't see .*\n.*EDGEICL_CACHE_DIR"):
        require_shared_cache(tmp_path, OneOfTwo(writer=False, seen=True), seen_within_s=0)
    assert list(tmp_path.iterdir()) == []
