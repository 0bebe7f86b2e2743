"""Does Optimum's ORTModelForCausalLM make the same tokens of the artifact's folder?

Asked where Optimum is installed, beside this interpreter or the one that exports (`models.exporter`), in a
process of its own. Where it isn't, nobody who builds there will use it: the manifest doesn't list it among the
runtimes that agree, and that is all.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgeicl.emit import optimum_process
from edgeicl.emit.generation_checks import before_end, end_tokens
from edgeicl.errors import DataError, ParityError
from edgeicl.models.exporter import exporter_python, exporter_versions
from edgeicl.specs.manifest import Deviation

_TIMEOUT_S = 600


def optimum_versions() -> dict[str, str] | None:
    """Of what the check would run; None where Optimum isn't installed."""
    try:
        return exporter_versions(exporter_python())
    except DataError:
        return None


def check_optimum(
    folder: Path, prompts: Sequence[Sequence[int]], expected: Sequence[Sequence[int]]
) -> tuple[list[Deviation], bool | None]:
    """Compares its greedy tokens after each prompt with `expected`, up to the one that ends a text.

    Returns:
        That it can't run the folder, if so, and whether it agrees; None where it isn't installed.

    Raises:
        ParityError: it generates other tokens.
    """
    if optimum_versions() is None:
        return [], None
    request = {
        "folder": str(folder.resolve()),
        "prompts": [list(prompt) for prompt in prompts],
        "tokens": [len(tokens) for tokens in expected],
    }
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    try:
        finished = subprocess.run(
            [str(exporter_python()), str(Path(optimum_process.__file__))],
            input=json.dumps(request),
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return _failed(f"it did not finish within {_TIMEOUT_S} s")
    if finished.returncode != 0:
        return _failed((finished.stderr.strip().splitlines() or ["it said nothing"])[-1])
    end = end_tokens(folder)
    generated = json.loads(finished.stdout.split("\n")[-2])
    for prompt, tokens, found in zip(prompts, expected, generated, strict=True):
        if before_end(end, found) != before_end(end, tokens):
            raise ParityError(
                f"after {list(prompt)} ORTModelForCausalLM generates {found}, onnxruntime {list(tokens)}"
            )
    return [], True


def _failed(why: str) -> tuple[list[Deviation], bool]:
    deviation = Deviation(
        what="Optimum",
        where="artifact",
        asked="ORTModelForCausalLM generates the same tokens",
        got="it can't run this folder",
        why=why,
    )
    return [deviation], False
