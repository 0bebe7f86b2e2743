"""A test that measures the computer has it to itself, and is not kept waiting by those that come later."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from types import SimpleNamespace

import pytest

from tests import side_by_side
from tests.side_by_side import named_after_sets, the_computer

WAIT_S = 10.0


@pytest.fixture(autouse=True)
def _own_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_ROOM", "_DOOR"):
        (tmp_path / name).touch()
        monkeypatch.setattr(side_by_side, name, tmp_path / name)


def _runs(alone: bool, during: Callable[[], object]) -> Event:
    """Set once a test in a thread has the computer."""
    entered = Event()

    def test() -> None:
        with the_computer(alone=alone):
            entered.set()
            during()

    Thread(target=test, daemon=True).start()
    return entered


def test_others_run_side_by_side() -> None:
    with the_computer(alone=False):
        assert _runs(False, lambda: None).wait(WAIT_S)


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (True, True)])
def test_one_that_measures_waits_and_is_waited_for(first: bool, second: bool) -> None:
    with the_computer(alone=first):
        entered = _runs(second, lambda: None)
        assert not entered.wait(0.3)
    assert entered.wait(WAIT_S)


def test_later_ones_wait_behind_it() -> None:
    over = Event()
    with the_computer(alone=False):
        measuring = _runs(True, lambda: over.wait(WAIT_S))
        assert not measuring.wait(0.3)  # at the door
        later = _runs(False, lambda: None)
        assert not later.wait(0.3)
    assert measuring.wait(WAIT_S)
    assert not later.wait(0.3)
    over.set()
    assert later.wait(WAIT_S)


def test_no_test_is_named_after_a_set() -> None:
    def item(name: str, *values: object) -> SimpleNamespace:
        return SimpleNamespace(nodeid=f"test[{name}]", callspec=SimpleNamespace(params=dict(enumerate(values))))

    several = {"a", "b"}
    found = named_after_sets(
        [
            item(str(several), several),
            item(str([{"of": several}]), 1, [{"of": several}]),
            item("several0", several),  # numbered
            item("{'a'}", {"a"}),
            SimpleNamespace(nodeid="without parameters"),
        ]
    )
    assert found == [f"test[{several}]", f"test[{[{'of': several}]}]"]
