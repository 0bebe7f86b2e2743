"""How long passes through a model take on this computer, before any of its weights is read.

The architecture is timed with one and with two layers of zeros: the difference is what a layer takes, and the
matrix products, which take nearly all of it, take as long for any weights. The head is left out, as it is
where only labels are read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgeicl.models.memory import LoadIn
from edgeicl.models.model_folder import parameter_shapes
from edgeicl.models.threads import fit_threads

_ROWS, _ROW_TOKENS = 8, 32
_REPETITIONS = 3


@dataclass(frozen=True)
class Passes:
    """Tokens that go through the model in `folder`.

    Args:
        trains: Backward too.
        one_by_one: As when text is generated; else in batches.
    """

    folder: Path
    tokens: float
    trains: bool = False
    one_by_one: bool = False
    load_in: LoadIn = "fp32"


def pass_seconds(passes: Passes) -> float:
    """About how long they take on this computer's processor; weights in 8 and 4 bits count as bf16."""
    half = passes.load_in != "fp32"
    return passes.tokens * _token_seconds(passes.folder, passes.trains, passes.one_by_one, half)


@cache
def _token_seconds(folder: Path, trains: bool, one_by_one: bool, half: bool) -> float:
    fit_threads(sum(map(math.prod, parameter_shapes(folder).values())))
    layers, one, two = _timed(folder, trains, one_by_one, half)
    # Not below what one layer took: where that is microseconds, the difference may be noise.
    return max(one, one + (layers - 1) * (two - one)) / (1 if one_by_one else _ROWS * _ROW_TOKENS)


def _timed(folder: Path, trains: bool, one_by_one: bool, half: bool) -> tuple[int, float, float]:
    """Layers of the model, and seconds of a pass with one of them and with two."""
    from transformers import AutoConfig, AutoModel

    config: Any = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    ids = torch.zeros((1, 1) if one_by_one else (_ROWS, _ROW_TOKENS), dtype=torch.int64)
    layers, found = int(config.num_hidden_layers), []
    for count in (1, 2):
        config.num_hidden_layers = count
        config.layer_types = (
            None if getattr(config, "layer_types", None) is None else ["full_attention"] * count
        )
        with torch.device("meta"):
            model: nn.Module = AutoModel.from_config(config, trust_remote_code=False)
        model = model.to(torch.bfloat16 if half else torch.float32).to_empty(device="cpu").eval()
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.zero_()
        found.append(_fastest(lambda model=model: _run(model, ids, trains)))  # type: ignore[misc]
    return layers, found[0], found[1]


def _run(model: nn.Module, ids: Tensor, trains: bool) -> None:
    with torch.set_grad_enabled(trains):
        states: Tensor = model(input_ids=ids, use_cache=False).last_hidden_state
        if trains:
            torch.autograd.backward(states.float().sum())


def _fastest(run: Callable[[], None]) -> float:
    run()
    seconds = []
    for _ in range(_REPETITIONS):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
