"""The table of architectures: `model_type` of config.json -> what makes its anatomy.

A row here goes with a lowering in `edgeicl.emit.lowering` and a second implementation in
`edgeicl.quantize.bodies.table`; a test ties the three.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgeicl.errors import DataError
from edgeicl.models.anatomy import Anatomy
from edgeicl.models.architectures import gpt2, llama, opt

ARCHITECTURES: Mapping[str, Callable[[Mapping[str, Any]], Anatomy]] = {
    "gpt2": gpt2.anatomy,
    "llama": llama.anatomy,
    "opt": opt.anatomy,
    "qwen2": llama.anatomy,
    "qwen3": llama.anatomy,
}


def anatomy_of(config: Mapping[str, Any]) -> Anatomy:
    """The anatomy of the model with this config.json.

    Raises:
        DataError: an architecture, or a setting of it, that edgeicl can't compile.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in ARCHITECTURES:
        raise DataError(
            f"model type {model_type!r} is not supported; expected one of {', '.join(sorted(ARCHITECTURES))}",
            next_step="name a student of a supported type in the recipe; teachers that aren't compiled may be "
            "of any type that transformers knows",
        )
    return ARCHITECTURES[model_type](config)
