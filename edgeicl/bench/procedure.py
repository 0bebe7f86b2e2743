"""How a measurement is conducted: what is measured beside the workload, and how often until it is quiet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from edgeicl.errors import Problem, SpecError

_TEST = re.compile(r"^(pp|tg)([1-9][0-9]*)(?:@d?([0-9]+))?$")
WINDOW_S = 30.0
"""Of a sustained load; shorter where that lasts less than four of them."""


@dataclass(frozen=True)
class AskedTest:
    """llama-bench's pp (prefill) or tg (decode) of so many tokens, behind `depth` positions of the cache."""

    kind: str
    tokens: int
    depth: int = 0

    @property
    def name(self) -> str:
        """As it is asked for: `pp256`, `tg32@512`."""
        return f"{self.kind}{self.tokens}" + (f"@{self.depth}" if self.depth else "")

    @property
    def positions(self) -> int:
        """Of the cache that it needs; a tg reads one token before it is timed."""
        return self.depth + self.tokens + (self.kind == "tg")

    def request(self) -> dict[str, object]:
        """As the runner takes it."""
        return asdict(self)


@dataclass(frozen=True)
class Procedure:
    """Beside the workload.

    `attempts`: runs at most until repetitions agree; the last one is refused unless `accept_noise`.
    `cool_down_s`: longest wait before every process but the first, and between repetitions, until the device is
    as cool as it was before the first.
    `sustained_s`: seconds of load without pause, after all else; 0: none.
    """

    tests: tuple[AskedTest, ...] = ()
    attempts: int = 1
    accept_noise: bool = True
    cool_down_s: float = 0.0
    sustained_s: float = 0.0

    @property
    def window_s(self) -> float:
        return min(WINDOW_S, self.sustained_s / 4)


def asked_tests(names: Sequence[str]) -> tuple[AskedTest, ...]:
    """`pp256`, `tg32`, `tg32@512` (behind 512 positions) -> tests. SpecError that lists whatever is none."""
    problems, found = [], []
    for name in names:
        match = _TEST.match(name.replace(" ", ""))
        if match is None:
            expected = "expected pp or tg with a number of tokens, such as pp256, tg32 or tg32@512"
            problems.append(Problem("--tests", f"found {name!r}", expected))
        else:
            found.append(AskedTest(match[1], int(match[2]), int(match[3] or 0)))
    if problems:
        raise SpecError("bench", problems)
    return tuple(dict.fromkeys(found))
