"""A result beside its baseline: conditions, what may be compared, and the command's exit code; CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import edgeicl.bench.stage as stage
from edgeicl.bench.devices.address import device_at
from edgeicl.bench.devices.device import Limits
from edgeicl.bench.devices.local import THIS_COMPUTER
from edgeicl.bench.gate import compared, conditions, read_baseline, require_alike, require_same_request
from edgeicl.bench.workload import Workload
from edgeicl.errors import BenchError, DataError, SpecError
from edgeicl.report.bench_csv import COLUMNS, bench_csv
from edgeicl.specs.measurement import BenchResult, LengthTest
from tests.unit.samples import bench_result
from tests.unit.test_cli import exit_code

Make = Callable[..., Path]


def changed(**update: object) -> BenchResult:
    return bench_result().model_copy(update=update)


def broken(text: str, now: BenchResult) -> list[str]:
    return [one for entry in compared(now, bench_result(), conditions([text])) for one in entry.broken]


@pytest.mark.parametrize(
    ("text", "decode_tps", "fails"),
    [
        ("decode_tps < -5%", 474.0, True),  # 500 less 5 % is 475
        ("decode_tps < -5%", 476.0, False),
        ("decode_tps < 480", 476.0, True),
        ("decode_tps>+10 %", 551.0, True),
        ("decode_tps > 10%", 549.0, False),
    ],
)
def test_conditions_on_paper(text: str, decode_tps: float, fails: bool) -> None:
    assert bool(broken(text, changed(decode_tokens_per_second=decode_tps))) == fails


def test_tests_are_metrics_too() -> None:
    def with_test(speed: float) -> BenchResult:
        test = LengthTest.model_validate(
            {
                "kind": "tg",
                "tokens": 32,
                "depth": 512,
                "samples_ms": (1.0,),
                "tokens_per_second": speed,
                "tokens_per_second_deviation": None,
            }
        )
        return changed(tests=(test,))

    wanted = conditions(["tg32@512 < -5%"])
    assert conditions(["tg32 @ d512 < -5%"])[0].metric == "tg32@512"  # as results print it
    assert conditions(["tg32@0 < -5%"])[0].metric == "tg32"
    found = {entry.metric: entry for entry in compared(with_test(90.0), with_test(100.0), wanted)}
    assert found["tg32@512"].broken == ("tg32@512 < -5%",)
    assert found["tg32@512"].change_percent == pytest.approx(-10.0)
    with pytest.raises(BenchError, match="not in both results"):
        compared(with_test(90.0), bench_result(), wanted)


def test_what_can_never_be_looked_at_is_told_before_anything_runs(
    tmp_path: Path, make_artifact: Make, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "open_artifact", lambda path: pytest.fail("something ran"))
    (tmp_path / "before.json").write_text(bench_result().model_dump_json())
    wanted = [word for text in ("tg32 < -5%", "sustained_ratio < 0.9") for word in ("--fail-if", text)]
    command = ["bench", str(make_artifact()), "--threads", "1", "--against", str(tmp_path / "before.json")]
    assert exit_code(*command, *wanted) == SpecError.exit_code
    told = capsys.readouterr().err
    assert "tg32 < -5%: the baseline has none" in told
    assert "sustained_ratio < 0.9: the baseline has none" in told
    test = LengthTest(
        kind="tg", tokens=32, samples_ms=(1.0,), tokens_per_second=9.0, tokens_per_second_deviation=None
    )
    (tmp_path / "before.json").write_text(changed(tests=(test,)).model_dump_json())
    assert exit_code(*command, *wanted[:2]) == SpecError.exit_code
    assert "not measured; expected it with --tests tg32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("update", "told"),
    [
        ({"decode_tokens_per_second": 0.0}, "decode_tps is 0"),
        ({"load_ms": -1.0}, "load_ms is -1"),
        ({"first_token_ms": float("nan")}, "first_token_ms"),
    ],
)
def test_a_baseline_that_cannot_have_been_measured(tmp_path: Path, update: dict[str, float], told: str) -> None:
    """A gate beside NaN would pass in silence."""
    path = tmp_path / "before.json"
    path.write_text(json.dumps(json.loads(bench_result().model_dump_json()) | update))
    with pytest.raises(DataError, match=told):
        read_baseline(path)


def test_a_noisy_baseline_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "before.json"
    path.write_text(changed(notes=("noisy: decode speed varied by 40%",)).model_dump_json())
    read_baseline(path)
    assert "noisy: decode speed varied by 40%" in caplog.text


def test_another_request_than_the_baselines_is_refused_at_once() -> None:
    before = bench_result()
    at = before.conditions
    same = Workload(at.threads, at.prompt_tokens, at.decode_tokens)
    require_same_request(before, THIS_COMPUTER, same)
    other = Workload(at.threads + 1, at.prompt_tokens + 1, at.decode_tokens)
    with pytest.raises(SpecError, match=r"(?s)--threads.*--prompt-tokens"):
        require_same_request(before, THIS_COMPUTER, other)
    with pytest.raises(SpecError, match="--on"):
        require_same_request(before, device_at("local", Limits(cores=(0,))), same)


def test_all_malformed_conditions_are_named() -> None:
    with pytest.raises(SpecError, match=r"(?s)'decode_tps'.*no metric 'speed'.*expected one of decode_tps"):
        conditions(["decode_tps", "speed < 3", "first_token_ms > 3"])


def test_other_conditions_are_refused() -> None:
    now = bench_result()
    require_alike(now, bench_result())
    threads = changed(conditions=now.conditions.model_copy(update={"threads": 1}), fidelity="emulated")
    with pytest.raises(
        BenchError, match=r"(?s)fidelity: now emulated, baseline measured.*threads: now 1, baseline 2"
    ):
        require_alike(threads, bench_result())


def test_a_baseline_that_is_none(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    with pytest.raises(SpecError, match="No such file"):
        read_baseline(file)
    file.write_text('{"version": 1}')
    with pytest.raises(DataError, match="is no result of a benchmark"):
        read_baseline(file)


def test_results_of_version_1_are_read(tmp_path: Path) -> None:
    old = json.loads(bench_result().model_dump_json()) | {"version": 1}
    for name in (
        "tests",
        "states",
        "device",
        "sustained",
        "attempts",
        "cooled_s",
        "warm_load_ms",
        "cold_load_ms",
    ):
        del old[name]
    (tmp_path / "b.json").write_text(json.dumps(old))
    assert read_baseline(tmp_path / "b.json").decode_tokens_per_second == 500.0


def test_csv_has_a_row_for_each_test() -> None:
    rows = list(csv.DictReader(io.StringIO(bench_csv(bench_result(), "a,b"))))
    assert tuple(rows[0]) == COLUMNS
    assert [row["test"] for row in rows] == ["pp64", "tg32 @ d64"]
    # 64 tokens in 4 and 4.1 ms.
    assert float(rows[0]["avg_ts"]) == pytest.approx((16000 + 64000 / 4.1) / 2, rel=1e-5)
    assert {row["name"] for row in rows} == {"a,b"}
    assert {row["fidelity"] for row in rows} == {"measured"}


def test_the_command_gates(make_artifact: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    artifact, file = str(make_artifact()), tmp_path / "base.json"
    command = ["bench", artifact, "--threads", "1", "--prompt-tokens", "8", "--decode-tokens", "4"]
    command += ["--repetitions", "2", "--accept-noise"]
    assert exit_code(*command, "-o", str(file), "--csv") == 0
    assert capsys.readouterr().out.startswith(",".join(COLUMNS))
    against = [*command, "--against", str(file)]
    assert exit_code(*against, "--fail-if", "artifact_bytes > 1%") == 0
    assert "artifact_bytes" in capsys.readouterr().out
    assert exit_code(*against, "--fail-if", "artifact_bytes < 1%") == 11
    assert "worse than" in capsys.readouterr().err
    assert exit_code(*command, "-o", str(tmp_path / "no" / "b.json")) == 2
    assert "no such folder" in capsys.readouterr().err
    assert exit_code("bench", artifact, "--on", "qemu:max", "--csv", "--sustained", "1") == 2
    error = capsys.readouterr().err
    assert "--csv" in error
    assert "--sustained" in error
    assert exit_code(*command, "--fail-if", "decode_tps < 1") == 2
    assert "no --against" in capsys.readouterr().err
