"""`edgeicl bench --against BASELINE --fail-if ...`: a result beside an earlier one, and what must not happen.

A condition is METRIC, `<` or `>`, and a limit: `decode_tps < -5%` holds when the speed fell by more than 5 %
of the baseline's, `first_token_ms > 20` when it is above 20 ms whatever the baseline.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path

from pydantic import ValidationError

from edgeicl.bench.devices.device import Device
from edgeicl.bench.procedure import AskedTest, asked_tests
from edgeicl.bench.workload import Workload
from edgeicl.errors import BenchError, DataError, Problem, SpecError
from edgeicl.specs.measurement import BenchResult
from edgeicl.specs.regression import Compared

log = logging.getLogger(__name__)

METRICS: dict[str, Callable[[BenchResult], float | None]] = {
    "decode_tps": lambda found: found.decode_tokens_per_second,
    "prefill_tps": lambda found: found.prefill_tokens_per_second,
    "first_token_ms": lambda found: found.first_token_ms,
    "decode_p50_ms": lambda found: found.decode_latency.p50_ms if found.decode_latency else None,
    "decode_p99_ms": lambda found: found.decode_latency.p99_ms if found.decode_latency else None,
    "load_ms": lambda found: found.load_ms,
    "warm_load_ms": lambda found: found.warm_load_ms,
    "peak_rss_bytes": lambda found: found.peak_rss_bytes,
    "artifact_bytes": lambda found: found.artifact_bytes,
    "sustained_ratio": lambda found: found.sustained.last_over_first if found.sustained else None,
}
_CONDITION = re.compile(r"^\s*([a-z0-9_@ ]+?)\s*([<>])\s*([+-]?[0-9]+(?:\.[0-9]+)?)\s*(%?)\s*$")


@dataclass(frozen=True)
class Condition:
    """One thing that must not be."""

    text: str
    metric: str
    below: bool
    limit: float
    relative: bool

    def broken(self, now: float, before: float) -> bool:
        """Whether it holds of a value and the baseline's."""
        value = 100 * (now / before - 1) if self.relative else now
        return value < self.limit if self.below else value > self.limit


def conditions(texts: Sequence[str]) -> tuple[Condition, ...]:
    """What `--fail-if` says. SpecError that lists every text which says nothing."""
    found, problems = [], []
    for text in texts:
        match = _CONDITION.match(text)
        if match is None:
            expected = 'expected METRIC < NUMBER or METRIC > NUMBER, with % for a change: "decode_tps < -5%"'
            problems.append(Problem("--fail-if", f"found {text!r}", expected))
            continue
        name = _metric(match[1].replace(" ", ""))
        if name is None:
            expected = f"expected one of {', '.join(METRICS)}, or a test such as tg32"
            problems.append(Problem("--fail-if", f"no metric {match[1]!r}", expected))
            continue
        found.append(Condition(text.strip(), name, match[2] == "<", float(match[3]), bool(match[4])))
    if problems:
        raise SpecError("bench", problems)
    return tuple(found)


def _metric(name: str) -> str | None:
    """A metric by the name that results have for it; None where there is no such metric or test."""
    if name in METRICS:
        return name
    try:
        (test,) = asked_tests([name])
    except SpecError:
        return None
    return test.name


def read_baseline(path: Path) -> BenchResult:
    """What `edgeicl bench --json` wrote. SpecError without the file, DataError where it is something else."""
    try:
        found = BenchResult.model_validate_json(path.read_bytes())
    except OSError as error:
        problem = Problem(
            "--against", error.strerror or str(error), "expected a file of `edgeicl bench -o FILE`"
        )
        raise SpecError(
            str(path), [problem], next_step="measure a baseline first, or correct the path"
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(
            f"{path} is no result of a benchmark{f', at {where}' if where else ''}: {first['msg']}",
            next_step="name a file that `edgeicl bench ... --json` wrote",
        ) from error
    impossible = [f"{name} is {value:g}" for name, value in _values(found).items() if not 0 < value < inf]
    if impossible:
        raise DataError(
            f"{path} can't have been measured: {', '.join(impossible)}; expected numbers above 0",
            next_step="measure the baseline again with `edgeicl bench ... -o FILE`",
        )
    for note in found.notes:
        if note.startswith("noisy"):
            log.warning("the baseline %s: %s", path, note)
    return found


def require_same_request(before: BenchResult, device: Device, workload: Workload) -> None:
    """SpecError, before anything is measured, for options with which it is another measurement."""
    at = before.conditions
    pairs: list[tuple[str, object, object]] = [
        ("--on", device.fidelity, before.fidelity),
        ("--threads", workload.threads, at.threads),
        ("--prompt-tokens", workload.prompt_tokens, at.prompt_tokens),
        ("--decode-tokens", workload.decode_tokens, at.decode_tokens),
    ]
    # Lengths that the baseline was measured with may have been cut to what the artifact takes.
    cut = any("cut" in note for note in before.notes) or not at.decode_tokens
    pairs = pairs[:2] if cut else pairs
    problems = [
        Problem(option, f"{now}, the baseline has {then}", "expected the same")
        for option, now, then in pairs
        if now != then
    ]
    if problems:
        raise SpecError("bench", problems)


def require_alike(now: BenchResult, before: BenchResult) -> None:
    """BenchError that lists how the two were measured differently, so that speeds can't be compared."""
    names = ("machine", "processor", "threads", "prompt_tokens", "decode_tokens", "prefix_tokens", "providers")
    pairs: list[tuple[str, object, object]] = [("fidelity", now.fidelity, before.fidelity)]
    pairs += [(name, getattr(now.conditions, name), getattr(before.conditions, name)) for name in names]
    if now.device and before.device:
        pairs.append(("limits", now.device.limits, before.device.limits))
    differing = [f"{name}: now {a}, baseline {b}" for name, a, b in pairs if a != b]
    if differing:
        raise BenchError(
            "\n  ".join(["the baseline was measured under other conditions:", *differing]),
            next_step="measure both on the same device with the same options",
        )


def compared(now: BenchResult, before: BenchResult, wanted: Sequence[Condition]) -> tuple[Compared, ...]:
    """Every metric that both results have.

    Raises:
        BenchError: a condition on a metric that one of them lacks.
    """
    current, earlier = _values(now), _values(before)
    lacking = [c.text for c in wanted if c.metric not in current or c.metric not in earlier]
    if lacking:
        raise BenchError(
            f"--fail-if {', '.join(lacking)}: not in both results; they share "
            f"{', '.join(name for name in current if name in earlier)}",
            next_step="measure it in both",
        )
    return tuple(
        Compared(
            metric=name,
            before=earlier[name],
            now=value,
            broken=tuple(c.text for c in wanted if c.metric == name and c.broken(value, earlier[name])),
        )
        for name, value in current.items()
        if name in earlier
    )


def require_had(
    wanted: Sequence[Condition], before: BenchResult, tests: Sequence[AskedTest], *, sustained: bool
) -> None:
    """SpecError, before anything is measured, for each condition that could never be looked at."""
    earlier = _values(before)
    planned = {*METRICS, *(test.name for test in tests)} - ({"sustained_ratio"} if not sustained else set())
    problems = []
    for condition in wanted:
        if condition.metric not in earlier:
            expected = f"expected one of {', '.join(earlier)}"
            problems.append(Problem("--fail-if", f"{condition.text}: the baseline has none", expected))
        elif condition.metric not in planned:
            option = "--sustained" if condition.metric in METRICS else f"--tests {condition.metric}"
            expected = f"expected it with {option}"
            problems.append(Problem("--fail-if", f"{condition.text}: not measured", expected))
    if problems:
        raise SpecError("bench", problems)


def _values(result: BenchResult) -> dict[str, float]:
    found = {name: value for name, of in METRICS.items() if (value := of(result)) is not None}
    return found | {
        AskedTest(test.kind, test.tokens, test.depth).name: test.tokens_per_second for test in result.tests
    }
