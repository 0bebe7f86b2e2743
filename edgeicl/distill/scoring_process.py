"""Loads a model, scores queries and tells how much memory that took: a process of its own, see `teacher_speed`.

`python -m edgeicl.distill.scoring_process` reads a request in JSON from stdin and writes bytes to stdout.
"""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from typing import Any

import psutil
import torch

from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.scoring import score_queries
from edgeicl.models.loading import load_model
from edgeicl.models.model_folder import model_folder


def peak_bytes(request: dict[str, Any]) -> int:
    """Highest resident memory while the request was worked on, above what there was before it.

    Raises:
        OSError: a system other than Linux, which alone tells a process its peak since it was started.
    """
    score_queries(LabelReader(load_model(model_folder("builtin:nli-student"))), [[1]], [(1,)], before=())
    gc.collect()  # of that model nothing stays
    start: int = psutil.Process().memory_info().rss  # with all that any model needs
    reader = LabelReader(load_model(Path(request["folder"]), request["load_in"]))
    torch.set_num_threads(request["threads"])
    tokens = [tuple(word) for word in request["tokens"]]
    score_queries(reader, request["queries"], tokens, before=request["before"])
    status = Path("/proc/self/status").read_text().splitlines()
    (peak,) = (line for line in status if line.startswith("VmHWM:"))
    return int(peak.split()[1]) * 1024 - start


if __name__ == "__main__":
    sys.stdout.write(f"{peak_bytes(json.load(sys.stdin))}\n")
