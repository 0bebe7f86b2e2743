"""What is measured beside the workload: lengths and depths, sustained load, noise, loads, cool-down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgeicl.bench.runner as runner
import edgeicl.bench.sustained as sustained_module
from edgeicl.bench.artifact import open_artifact
from edgeicl.bench.devices.address import device_at
from edgeicl.bench.devices.local import LocalWorkbench
from edgeicl.bench.figures import length_test, sustained_load
from edgeicl.bench.length_tests import needed_context_tokens, time_tests
from edgeicl.bench.noise import disagreeing_tests
from edgeicl.bench.procedure import AskedTest, Procedure, asked_tests
from edgeicl.bench.stage import bench, quiet_run
from edgeicl.bench.sustained import sustain
from edgeicl.bench.workload import Workload
from edgeicl.bench.workload_run import place_artifact
from edgeicl.errors import BenchError, SpecError
from edgeicl.models.onnx_decoder import OnnxDecoder

Make = Callable[..., Path]
WORKLOAD = Workload(1, 6, 4, repetitions=2, warmup_repetitions=0)


def test_names_of_tests() -> None:
    assert asked_tests(["pp256", "tg32 @ 512", "tg8@d16", "pp256"]) == (
        AskedTest("pp", 256),
        AskedTest("tg", 32, 512),
        AskedTest("tg", 8, 16),
    )
    with pytest.raises(SpecError, match=r"(?s)found 'pp'.*found 'xx3'.*such as pp256") as caught:
        asked_tests(["pp", "tg1", "xx3"])
    assert len(caught.value.problems) == 2


class Recorder:
    """Writes down what it is asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def stand_at(self, tokens: int) -> None:
        self.calls.append(("depth", tokens))

    def prefill(self, ids: Any) -> None:
        self.calls.append(("prefill", ids.shape[1]))

    def decode(self, ids: Any) -> None:
        self.calls.append(("decode", len(ids)))


def test_tests_take_turns_and_warm_up_apart() -> None:
    asked = [AskedTest("pp", 5).request(), AskedTest("tg", 2, 7).request()]
    decoder, pauses = Recorder(), []
    times = time_tests(
        decoder,
        asked,
        vocabulary=40,
        repetitions=2,
        warmup_repetitions=1,
        pause=lambda: pauses.append(1),
    )
    once = [("depth", 0), ("prefill", 5), ("depth", 7), ("prefill", 1), ("decode", 1), ("decode", 1)]
    assert decoder.calls == once * 3
    assert [len(taken) for taken in times] == [2, 2]
    assert len(pauses) == 6
    assert needed_context_tokens(asked) == 10


def test_a_row_of_llama_bench_on_paper() -> None:
    """10 tokens in 5 and 20 ms: 2,000 and 500 a second, mean 1,250, deviation 1500/sqrt(2)."""
    found = length_test(AskedTest("tg", 10, 512), [5.0, 20.0])
    assert (found.name, found.tokens_per_second) == ("tg10 @ d512", 1250.0)
    assert found.tokens_per_second_deviation == pytest.approx(1500 / 2**0.5, rel=1e-12)
    assert length_test(AskedTest("pp", 10), [5.0]).tokens_per_second_deviation is None


def test_a_depth_is_read_by_every_later_token(make_artifact: Make) -> None:
    """Positions of zeros share attention, so logits differ from those at depth 0, and come back after it."""
    decoder = OnnxDecoder(make_artifact() / "model.onnx", threads=1, context_tokens=32)
    ids = np.array([[5, 6, 7]])
    plain = decoder.prefill(ids)
    decoder.stand_at(8)
    behind = decoder.prefill(ids)
    decoder.stand_at(0)
    assert np.abs(behind - plain).max() > 1e-3
    np.testing.assert_array_equal(decoder.prefill(ids), plain)


def test_windows_of_a_sustained_load(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(sustained_module.time, "perf_counter", lambda: now[0])

    def repetition() -> tuple[float, list[float]]:
        now[0] += 0.01
        return 2.0, [1.0, 3.0]

    windows = sustain(repetition, seconds=0.2, window_s=0.05)
    assert 2 <= len(windows) <= 5
    assert windows[-1]["end_s"] >= 0.2
    found = sustained_load(windows, Workload(1, 10, 2), seconds=0.2)
    assert found.windows[0].prefill_tokens_per_second == pytest.approx(5000.0, rel=1e-12)
    assert found.windows[0].decode_tokens_per_second == pytest.approx(500.0, rel=1e-12)
    assert found.last_over_first == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize(("seconds", "lengths"), [(10.0, [3.0, 3.0, 4.0]), (11.0, [3.0, 3.0, 3.0, 2.0])])
def test_no_window_is_a_remainder(
    monkeypatch: pytest.MonkeyPatch, seconds: float, lengths: list[float]
) -> None:
    """Windows of 3 s: the 1 s that is left of 10 belongs to the last window, the 2 s of 11 are one."""
    now = [0.0]
    monkeypatch.setattr(sustained_module.time, "perf_counter", lambda: now[0])

    def repetition() -> tuple[float, list[float]]:
        now[0] += 0.5
        return 1.0, [1.0]

    windows = sustain(repetition, seconds=seconds, window_s=3.0)
    assert [window["end_s"] - window["start_s"] for window in windows] == lengths


def test_a_load_that_slows_down_on_paper() -> None:
    state: dict[str, Any] = {}
    windows = [
        {"start_s": 0.0, "end_s": 1.0, "first_token_ms": [2.0], "decode_ms": [4.0], "state": state},
        {"start_s": 1.0, "end_s": 2.0, "first_token_ms": [2.0], "decode_ms": [5.0], "state": state},
    ]
    assert sustained_load(windows, Workload(1, 10, 2), seconds=2.0).last_over_first == pytest.approx(0.8)


class Noisy:
    """A graph whose repetitions agree from some attempt on."""

    def __init__(self, quiet_from: int, **read_back: Any) -> None:
        self.asked, self.quiet_from, self.read_back = 0, quiet_from, read_back
        self.more: list[dict[str, Any]] = []

    def ask(self, action: str, workload: Workload, **more: Any) -> dict[str, Any]:
        self.asked += 1
        second = 2.0 if self.asked >= self.quiet_from else 3.0
        self.more.append(more)
        known = {"threads": 1, "pool_threads": 1, "logical_cores": 1, "peak_rss_bytes": 1}
        first_token_ms = [1.0, 1.0]
        return {
            "decode_ms": [[2.0, 2.0], [second, second]],
            "first_token_ms": first_token_ms,
            "start_c": more.get("start_c", 31.0),
            **(known | self.read_back),
        }


def test_noise_is_measured_again_then_refused() -> None:
    strict = Procedure(attempts=3, accept_noise=False)
    settled: Any = Noisy(quiet_from=2)
    assert quiet_run(settled, WORKLOAD, strict, bytes_per_token=None)[1] == 2
    never: Any = Noisy(quiet_from=9)
    with pytest.raises(
        BenchError,
        match=r"(?s)too noisy, in the last of 3 attempts:.*decode speed varied by 20.0% in the middle half",
    ):
        quiet_run(never, WORKLOAD, strict, bytes_per_token=None)
    assert never.asked == 3
    accepted: Any = Noisy(quiet_from=9)
    assert quiet_run(accepted, WORKLOAD, Procedure(), bytes_per_token=None)[1] == 1


def test_other_work_is_noise_though_repetitions_agree() -> None:
    """Repetitions of milliseconds agree while something slows all of them alike."""
    calm: Any = Noisy(quiet_from=1)
    shares = iter([0.6, 0.6, 0.05])
    conduct = Procedure(attempts=3, accept_noise=False)
    found = quiet_run(calm, WORKLOAD, conduct, bytes_per_token=None, others=lambda: next(shares))
    assert found[1:] == (3, ())
    with pytest.raises(BenchError, match=r"other processes took up to 60% of the cores' time"):
        quiet_run(calm, WORKLOAD, conduct, bytes_per_token=None, others=lambda: 0.6)
    (note,) = quiet_run(calm, WORKLOAD, Procedure(), bytes_per_token=None, others=lambda: 0.6)[2]
    assert note.startswith("noisy: other processes took up to 60%")


def test_tests_whose_repetitions_disagree_are_named() -> None:
    (note,) = disagreeing_tests({"pp64": [1.0, 2.0, 3.0], "tg32": [1.0, 1.0, 9.0]})
    assert "pp64 by" in note
    assert disagreeing_tests({"tg32": [1.0, 1.0, 1.0, 1.0, 9.0]}) == ()


def test_later_attempts_cool_down_to_where_the_first_began() -> None:
    """A device is hot from the attempt before: its own start is no measure."""
    settled: Any = Noisy(quiet_from=3)
    quiet_run(settled, WORKLOAD, Procedure(attempts=3, cool_down_s=9.0), bytes_per_token=None)
    assert ["start_c" in more for more in settled.more] == [False, True, True]
    assert [more.get("start_c") for more in settled.more] == [None, 31.0, 31.0]
    assert {more["waits"] for more in settled.more} == {WORKLOAD.repetitions}


@pytest.mark.parametrize(
    ("read_back", "told"),
    [
        ({"threads": 2}, "session has 2 threads; expected 1"),
        ({"pool_threads": 4}, "process has 4 threads; expected 1"),
        ({"logical_cores": 0}, "1 threads ran on 0 cores"),
        ({"peak_rss_bytes": None}, "doesn't tell the peak memory"),
    ],
)
def test_what_no_later_run_can_mend_is_told_after_the_first(read_back: dict[str, Any], told: str) -> None:
    wrong: Any = Noisy(quiet_from=9, **read_back)
    with pytest.raises(BenchError, match=told):
        quiet_run(wrong, WORKLOAD, Procedure(attempts=3), bytes_per_token=None)
    assert wrong.asked == 1


def test_cooling_down_has_its_own_time(make_artifact: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """README's own `--cool-down 60` with five tests waits half an hour, all of what a run has besides."""
    given: list[float] = []

    def run(self: LocalWorkbench, program: str, request: Any, *, timeout_s: float) -> dict[str, Any]:
        given.append(timeout_s)
        return {"threads": 1}

    monkeypatch.setattr(LocalWorkbench, "run", run)
    with device_at("local").open() as there:
        placed = place_artifact(there, open_artifact(make_artifact()))
        placed.ask("tests", WORKLOAD, waits=30, cool_down_s=60.0)
        placed.ask("tests", WORKLOAD, waits=30)
    assert given == [1800.0 + 1800.0, 1800.0]


def test_cool_down_waits_for_the_temperature_of_the_start(
    monkeypatch: pytest.MonkeyPatch, make_artifact: Make
) -> None:
    degrees = iter([40.0, 50.0, 45.0, 41.5])
    monkeypatch.setattr(runner, "hottest_c", lambda: next(degrees))
    waits: list[float] = []
    monkeypatch.setattr(runner.time, "sleep", waits.append)
    run = runner.Run(_request(make_artifact(), cool_down_s=60.0))
    run.cool_down()
    assert len(waits) == 2  # at 50 and at 45 degrees, and 41.5 is near enough to 40
    monkeypatch.setattr(runner, "hottest_c", lambda: None)
    blind = runner.Run(_request(make_artifact("b"), cool_down_s=0.05))
    blind.cool_down()
    assert blind.cooled_s >= 0.05  # by time where there is no sensor


def test_a_run_that_follows_another_cools_down_first(
    monkeypatch: pytest.MonkeyPatch, make_artifact: Make
) -> None:
    degrees = iter([52.0, 46.0, 41.0])
    monkeypatch.setattr(runner, "hottest_c", lambda: next(degrees))
    waits: list[float] = []
    monkeypatch.setattr(runner.time, "sleep", waits.append)
    run = runner.Run(_request(make_artifact(), cool_down_s=60.0, start_c=40.0))
    assert len(waits) == 2
    assert run.settings()["start_c"] == 40.0


def test_threads_of_a_gpus_driver_are_not_counted(monkeypatch: pytest.MonkeyPatch, make_artifact: Make) -> None:
    request = _request(make_artifact())
    assert runner.Run(request).settings()["pool_threads"] == 1
    own = runner.engine("fused")
    monkeypatch.setattr(runner, "engine", lambda name: own)
    assert runner.Run({**request, "engine": "cuda:0"}).settings()["pool_threads"] is None


def _request(artifact: Path, **more: Any) -> dict[str, Any]:
    request = {"model": str(artifact / "model.onnx"), "engine": "fused", "prefix": None, "threads": 1}
    return {**request, "vocabulary": 40, "prompt_tokens": 4, "decode_tokens": 2, **more}


def test_all_of_it_in_one_real_run(make_artifact: Make) -> None:
    conduct = Procedure(asked_tests(["pp8", "tg3@16"]), sustained_s=0.4)
    result = bench(make_artifact(), WORKLOAD, procedure=conduct)
    assert [test.name for test in result.tests] == ["pp8", "tg3 @ d16"]
    assert all(len(test.samples_ms) == 2 for test in result.tests)
    assert result.sustained is not None
    assert len(result.sustained.windows) >= 2
    assert result.warm_load_ms is not None
    assert result.cold_load_ms == result.load_ms
    assert result.device is not None
    assert result.device.affinity
    assert result.states[0].when == "before"
    assert result.states[-1].when == "after"
    assert len(result.states) == 2 + WORKLOAD.repetitions


def test_tests_that_do_not_fit_are_all_named(make_artifact: Make) -> None:
    conduct = Procedure(asked_tests(["pp65", "tg64"]))
    with pytest.raises(BenchError, match=r"(?s)pp65 .* needs 65 .*tg64 .* needs 65 .*most the 64"):
        bench(make_artifact(), WORKLOAD, procedure=conduct)
    labels = make_artifact("labels", labels_alone=True)
    with pytest.raises(BenchError, match="tg2: the artifact has logits of its labels alone"):
        bench(labels, WORKLOAD, procedure=Procedure(asked_tests(["tg2"])))
