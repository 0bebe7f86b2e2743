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
    folder: Path,
    prompts: Sequence[Sequence[int]],
    tokens: Sequence[int],
    texts: Sequence[str],
    before: Sequence[int] = (),
) -> GenaiRun:
    """Greedy tokens after each of `prompts`, as many as `tokens` says, then the ids of `texts`.

    The tokens `before` are read once, and stand before every prompt.
    """
    request = {
        "folder": str(folder.resolve()),
        "before": list(before),
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
        import onnxruntime_genai as genai

        config = genai.Config(request["folder"])
        config.clear_providers()  # the CPU is there on every computer
        model = genai.Model(config)
        generated = []
        generator: Any = None
        for prompt, count in zip(request["prompts"], request["tokens"], strict=True):
            if generator is None or not request["before"]:
                generator = _generator(genai, model, request)
            else:
                generator.rewind_to(len(request["before"]))
            generator.append_tokens(_ids(prompt))
            made: list[int] = []
            while len(made) < count and not generator.is_done():
                generator.generate_next_token()
                made.append(int(generator.get_next_tokens()[0]))
            generated.append(made)
        yield {"generated": generated}
        tokenizer = genai.Tokenizer(model)
        # without the option genai never puts the leading token there, whatever the files say
        tokenizer.update_options(add_special_tokens="true")
        texts = request["texts"]
        yield {"tokenizer_ids": [[int(token) for token in tokenizer.encode(text)] for text in texts]}
    except Exception as error:  # the library raises plain Exception
        yield {"failure": (str(error) or type(error).__name__).splitlines()[0]}


def _generator(genai: Any, model: Any, request: dict[str, Any]) -> Any:
    """Greedy, with room for the longest prompt; it has read what stands before all of them."""
    before, prompts = request["before"], request["prompts"]
    longest = max(len(prompt) + count for prompt, count in zip(prompts, request["tokens"], strict=True))
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=len(before) + longest, do_sample=False)
    generator = genai.Generator(model, parameters)
    if before:
        generator.append_tokens(_ids(before))
    return generator


def _ids(tokens: Sequence[int]) -> Any:
    import numpy as np

    return np.asarray(tokens, dtype=np.int32)


def main() -> None:
    """Each step is written as soon as it is done: a crash in the next one leaves it."""
    for step in _steps(json.load(sys.stdin)):
        sys.stdout.write(json.dumps(step) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
