"""`model_type` -> the architecture in plain torch."""

from __future__ import annotations

from collections.abc import Mapping

from edgeicl.quantize.bodies.body import Body
from edgeicl.quantize.bodies.gpt2 import Gpt2Body
from edgeicl.quantize.bodies.llama import LlamaBody
from edgeicl.quantize.bodies.opt import OptBody

BODIES: Mapping[str, type[Body]] = {
    "gpt2": Gpt2Body,
    "llama": LlamaBody,
    "opt": OptBody,
    "qwen2": LlamaBody,
    "qwen3": LlamaBody,
}
