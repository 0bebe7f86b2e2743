"""What an artifact answers, in a process of its own: JSON in on stdin, JSON out, numpy and onnxruntime alone.

Every request has model, engine (fused | growing), prefix (null, or a file with the sets that stand before
queries) and threads, and an action:

- logits: after `prompt` (token ids), and after each of `steps`, one by one, behind the first set.
- scores: of `answers` (token ids each) after each of `rows` (token ids), `batch_size` at once, behind every
  set; `mean: true` for means over an answer's tokens.

Several at once are `requests`, whose answers are `answers`. Arrays in an answer are `shape` and `float32`, the
latter in base64.
"""

from __future__ import annotations

import base64
import json
import platform
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

try:
    from edgeicl.bench.answer_scores import needed_positions, score_rows
    from edgeicl.bench.device_facts import instruction_features
    from edgeicl.bench.runner import ENGINES
    from edgeicl.models.prefix_file import prefix_tokens, read_prefix
except ImportError:  # On a device the files lie side by side.
    from answer_scores import needed_positions, score_rows  # type: ignore[import-not-found, no-redef]
    from device_facts import instruction_features  # type: ignore[import-not-found, no-redef]
    from prefix_file import prefix_tokens, read_prefix  # type: ignore[import-not-found, no-redef]
    from runner import ENGINES  # type: ignore[import-not-found, no-redef]


def packed(values: npt.NDArray[Any]) -> dict[str, Any]:
    """An array as JSON can hold it."""
    raw = np.ascontiguousarray(values, dtype="<f4")
    return {"shape": list(raw.shape), "float32": base64.b64encode(raw.tobytes()).decode()}


def unpacked(value: dict[str, Any]) -> npt.NDArray[np.float32]:
    """The array that was packed."""
    raw = np.frombuffer(base64.b64decode(value["float32"]), dtype="<f4")
    return raw.reshape(value["shape"]).astype(np.float32)


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """What the request asks for, with what computed it."""
    sets = read_prefix(Path(request["prefix"]))[0] if request["prefix"] else []
    before = max(map(prefix_tokens, sets), default=0)

    def decoder(positions: int, batch_size: int) -> Any:
        return ENGINES[request["engine"]](
            Path(request["model"]),
            threads=request["threads"],
            context_tokens=before + positions,
            batch_size=batch_size,
        )

    if request["action"] == "logits":
        prompt, steps = request["prompt"], request["steps"]
        made = decoder(len(prompt) + len(steps), 1)
        if sets:
            made.load_prefix(sets[0])
        logits = [made.prefill(np.array([prompt], dtype=np.int64))[0]]
        logits += [made.decode(np.array([token], dtype=np.int64))[0] for token in steps]
        found = {"logits": packed(np.stack(logits))}
    else:
        rows, answers = request["rows"], request["answers"]
        made = decoder(needed_positions(rows, answers), min(request["batch_size"], len(rows)))
        scores = score_rows(made, sets, rows, answers, mean=request["mean"], advance=lambda count: None)
        found = {"scores": packed(scores)}
    return found | {
        "machine": platform.machine(),
        "features": instruction_features(),
        "runtime_version": ort.__version__,
        "providers": list(made.providers),
    }


def main() -> None:
    """Reads the request, writes the answer as the last line of stdout."""
    asked = json.loads(sys.stdin.read())
    found = {"answers": [answer(one) for one in asked["requests"]]} if "requests" in asked else answer(asked)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
