"""How near the time that `edgeicl plan` says comes to the time that the build takes.

    python -m tests.evidence_build_time RECIPE [RECIPE ...] [-- OPTION ...]

prints the table of docs/results/build-time.md: each recipe is planned and built with an empty cache, by the
command line with the options given. A build counts the recipe layer as one step, and importance with the plan.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgeicl.report.tables import markdown

_STEPS = {
    "plan bits and quantize": ("importance", "quantize"),
    "emit and check": ("emit",),
    "benchmark": ("benchmark",),
    "report": ("report",),
}
_DONE = re.compile(r"\] (.+?)(?: for \S+)? \.\.\. ([0-9.]+) s$")


def _edgeicl(cache: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgeicl", *arguments]
    environment = os.environ | {"EDGEICL_CACHE_DIR": str(cache)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def rows(recipe: str, options: Sequence[str]) -> list[tuple[str, ...]]:
    """One for each step of the build, and one for all: seconds said, seconds taken, and their ratio."""
    with tempfile.TemporaryDirectory() as scratch:
        cache, output = Path(scratch, "cache"), Path(scratch, "artifact")
        plan = json.loads(_edgeicl(cache, "plan", recipe, *options, "--json").stdout)
        built = _edgeicl(cache, "compile", recipe, *options, "-o", str(output), "--json")
    (target,) = plan["targets"]
    said = {entry["stage"]: entry["seconds"] or 0.0 for entry in target["stages"]}
    found = {match[1]: float(match[2]) for line in built.stderr.splitlines() if (match := _DONE.search(line))}
    pairs = {"distill": (sum(entry["seconds"] or 0.0 for entry in plan["stages"]), found["distill"])}
    pairs |= {step: (sum(said[stage] for stage in stages), found[step]) for step, stages in _STEPS.items()}
    told, taken = zip(*pairs.values(), strict=True)
    pairs["all"] = (sum(told), sum(taken))
    return [
        (recipe, step, f"{first:.1f}", f"{second:.1f}", f"{first / second:.2f}")
        for step, (first, second) in pairs.items()
    ]


def main() -> None:
    """Prints the table."""
    given = [*sys.argv[1:], "--"]
    recipes, options = given[: given.index("--")], given[given.index("--") + 1 : -1]
    table = [row for recipe in recipes for row in rows(recipe, options)]
    sys.stdout.write(markdown(("recipe", "step", "said, s", "taken, s", "ratio"), table) + "\n")


if __name__ == "__main__":
    main()
