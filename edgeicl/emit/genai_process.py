"""onnxruntime-genai in a process of its own: what it does to a folder, or how it ended.

Its native code has been seen to crash while it reads some tokenizers; here that ends this process alone. Run as
`python -m edgeicl.emit.genai_process`: a request in JSON on stdin, a line of JSON on stdout after each step.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeicl.module_process import run_module

_TIMEOUT_S = 600


@dataclass(frozen=True)
class GenaiRun:
    """What the process wrote: a step that it didn't reach is None, and `failure` says why."""

    generated: list[list[int]] | None
    tokenizer_ids: list[list[int]] | None
    failure: str


def run_genai(
    folder: Path, prompts: Sequence[Sequence[int]], tokens: Sequence[int], texts: Sequence[str]
) -> GenaiRun:
    """Greedy tokens after each of `prompts`, as many as `tokens` says, then the ids of `texts`."""
    request = {
        "folder": str(folder.resolve()),
        "prompts": [list(prompt) for prompt in prompts],
        "tokens": list(tokens),
        "texts": list(texts),
    }
    try:
        finished = run_module("edgeicl.emit.genai_process", request, timeout_s=_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return GenaiRun(None, None, f"it did not finish within {_TIMEOUT_S} s")
    found: dict[str, Any] = {}
    for line in finished.stdout.splitlines():
        with suppress(ValueError):  # the library may write lines of its own
            found |= dict(json.loads(line))
    told = finished.stderr.strip().splitlines()[-1:]
    crashed = ": ".join([f"its process ended with exit code {finished.returncode}", *told])
    failure = found.get("failure") or ("" if finished.returncode == 0 else crashed)
    return GenaiRun(found.get("generated"), found.get("tokenizer_ids"), failure)


def _steps(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    try:
        import numpy as np
        import onnxruntime_genai as genai

        model = genai.Model(request["folder"])
        generated = []
        for prompt, count in zip(request["prompts"], request["tokens"], strict=True):
            parameters = genai.GeneratorParams(model)
            parameters.set_search_options(max_length=len(prompt) + count, do_sample=False)
            generator = genai.Generator(model, parameters)
            generator.append_tokens(np.asarray(prompt, dtype=np.int32))
            while not generator.is_done():
                generator.generate_next_token()
            generated.append([int(token) for token in generator.get_sequence(0)[len(prompt) :]])
        yield {"generated": generated}
        tokenizer = genai.Tokenizer(model)
        # without the option genai never puts the leading token there, whatever the files say
        tokenizer.update_options(add_special_tokens="true")
        texts = request["texts"]
        yield {"tokenizer_ids": [[int(token) for token in tokenizer.encode(text)] for text in texts]}
    except Exception as error:  # the library raises plain Exception
        yield {"failure": (str(error) or type(error).__name__).splitlines()[0]}


def main() -> None:
    """Each step is written as soon as it is done: a crash in the next one leaves it."""
    for step in _steps(json.load(sys.stdin)):
        sys.stdout.write(json.dumps(step) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
