"""Of several processes that fail, one tells why."""

from __future__ import annotations

import pytest
from torch.distributed import TCPStore

from edgeicl import launched


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch) -> TCPStore:
    """The key-value store of a launcher of two processes."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for name, value in {
        "WORLD_SIZE": "2",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(launched, "_HEAD_START_S", 0.0)
    return store


def test_the_first_that_fails_tells_and_no_other(launch: TCPStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    assert launched.fails_first()
    monkeypatch.setenv("RANK", "0")
    assert not launched.fails_first()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")  # the launcher started all processes again
    assert launched.fails_first()


def test_without_an_answer_the_first_process_tells(monkeypatch: pytest.MonkeyPatch, launch: TCPStore) -> None:
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE")
    for rank, tells in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        assert launched.fails_first() is tells


def test_a_process_alone_always_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "1")
    assert launched.fails_first()
