"""The table of `edgeicl plan`: what it says of a plan that is given, and of several caches."""

from __future__ import annotations

from edgeicl.report.forecast import forecast_text
from edgeicl.specs.forecast import Forecast, ForecastSize, TargetForecast


def size(label: str, *, fits: bool = True, cache_bits: int | None = 32) -> ForecastSize:
    return ForecastSize(label=label, cache_bits=cache_bits, artifact_bytes=10, resident_bytes=20, fits=fits)


def text(*, given: ForecastSize | None, several: bool = False, problem: str | None = None) -> str:
    end = None if several else 32
    found = TargetForecast(
        target="phone",
        artifact_limit_bytes=10,
        resident_limit_bytes=None,
        given=given,
        best=None,
        smallest=size("smallest", cache_bits=end),
        largest=size("largest", cache_bits=end),
        uniform=(size("uniform fp32", cache_bits=8),),
        other_tensor_bytes=1,
        other_file_bytes=1,
        prefix_bytes=0,
        kv_cache_bytes=1,
        activation_bytes=1,
        runtime_overhead_bytes=1,
        groups=1,
        to_measure=1,
        measured=0,
        calibration_tokens=1,
        stages=(),
        problem=problem,
    )
    return forecast_text(Forecast(recipe="tiny", stages=(), targets=(found,)))


def test_a_given_plan_has_a_row_and_the_headline() -> None:
    over = text(given=size("given", fits=False), problem="too large\nnext: edit it")
    assert over.startswith("tiny for phone: the given plan doesn't fit\n")
    assert [line.split()[-1] for line in over.splitlines() if line.startswith("given")] == ["no"]
    assert "no plan fits" not in over
    assert text(given=size("given")).startswith("tiny for phone: the given plan fits\n")
    assert text(given=None).startswith("tiny for phone: no plan fits\n")


def test_the_problem_is_left_to_the_error() -> None:
    assert "too large" not in text(given=None, problem="too large\nnext: nothing")


def test_rows_name_their_cache_where_there_are_several() -> None:
    rows = {line.split("  ")[0]: line for line in text(given=None, several=True).splitlines()}
    assert rows["plan"].split()[:2] == ["plan", "cache"]
    assert "8 bits" in rows["uniform fp32"]
    assert "any" in rows["smallest"]
    assert "cache" not in text(given=None).splitlines()[2]
