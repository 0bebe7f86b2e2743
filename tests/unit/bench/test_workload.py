from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgeicl.bench.protocol as protocol_module
from edgeicl.bench.protocol import turns
from edgeicl.bench.workload import Workload
from edgeicl.errors import SpecError


def test_every_bad_count_is_listed() -> None:
    with pytest.raises(SpecError, match=r"(?s)--threads.*found 0.*--warmup-repetitions.*found -1"):
        Workload(0, 1, 1, repetitions=1, warmup_repetitions=-1)


def test_mean_depth_is_the_mean_of_the_steps() -> None:
    # After a prompt of 10 the steps read 11, 12, 13 and 14 positions.
    assert Workload(1, 10, 4).mean_decode_depth_tokens == (11 + 12 + 13 + 14) / 4


def test_lengths_that_fit_are_left_alone() -> None:
    assert Workload(2, 128, 64).fitted(192) == (Workload(2, 128, 64), ())


def test_lengths_are_cut_with_a_note() -> None:
    cut, (note,) = Workload(2, 128, 64).fitted(100)
    assert cut == Workload(2, 36, 64)
    assert note == "cut to fit the model's context of 100 tokens: prompt 128 -> 36"
    shortest, (note,) = Workload(2, 128, 64).fitted(10)
    assert shortest == Workload(2, 1, 9)
    assert note.endswith(": prompt 128 -> 1, decode 64 -> 9")


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(2, 4096))
def test_cut_lengths_fit(prompt: int, decode: int, context: int) -> None:
    cut, notes = Workload(1, prompt, decode).fitted(context)
    assert 1 <= cut.prompt_tokens <= prompt
    assert 1 <= cut.decode_tokens <= decode
    assert cut.prompt_tokens + cut.decode_tokens <= context
    assert (not notes) == (cut == Workload(1, prompt, decode))


@pytest.mark.parametrize(
    ("repetitions", "least_s", "taken"), [(3, 0.0, 3), (3, 1.0, 3), (1, 3.0, 6), (0, 0.0, 0)]
)
def test_repetitions_go_on_for_so_many_seconds(
    repetitions: int, least_s: float, taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each takes half a second."""
    now = [7.0]
    monkeypatch.setattr(protocol_module.time, "perf_counter", lambda: now[0])
    found = []
    for number in turns(repetitions, least_s):
        found.append(number)
        now[0] += 0.5
    assert found == list(range(taken))
