"""transformers as it is, in fp32 and in bf16: what runs with no work at all. In fp32 it is the reference too.

Attention is torch's fused one, the key/value cache transformers' own. Each precision reads weights that were
saved in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgeicl.bench.protocol import Ids
from edgeicl.bench.rivals.rival import Engine, Logits, Rival, RivalEnvironment, SteppedEngine

TRANSFORMERS = RivalEnvironment(
    "transformers",
    ("transformers>=4.57,<6", "torch", "safetensors"),
    "edgeicl's own environment has them; another Python shows another version",
)
RIVALS = tuple(
    Rival(
        name,
        f"transformers, eager, {dtype}",
        TRANSFORMERS,
        __name__,
        logit_tolerance=tolerance,
        settings={"dtype": dtype},
    )
    for name, dtype, tolerance in (("hf-fp32", "float32", 1e-4), ("hf-bf16", "bfloat16", 0.05))
)
IMPORTS = ("torch", "transformers")


def build(checkpoint: Path, folder: Path, settings: Mapping[str, Any], context_tokens: int) -> None:
    """The checkpoint with its weights in the precision of `settings`."""
    _model(checkpoint, settings["dtype"]).save_pretrained(folder)


def load(folder: Path, settings: Mapping[str, Any], threads: int, context_tokens: int) -> Engine:
    """The model in `folder`, ready to run."""
    return EagerDecoder(_model(folder, settings["dtype"]), threads)


def _model(folder: Path, dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(folder), dtype=getattr(torch, dtype)).eval()


class EagerDecoder(SteppedEngine):
    """A transformers model with its cache."""

    def __init__(self, model: Any, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.threads: int = torch.get_num_threads()
        self._torch, self._model = torch, model
        self.reset()

    def reset(self) -> None:
        self._cache: Any = None

    def read(self, ids: Ids) -> Logits:
        with self._torch.inference_mode():
            found = self._model(
                input_ids=self._torch.from_numpy(np.ascontiguousarray(ids)),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self._cache = found.past_key_values
        logits: Logits = found.logits[:, -1].float().numpy()
        return logits
