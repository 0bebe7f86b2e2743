"""The table of architectures: `model_type` of config.json -> what makes its anatomy.

A row here goes with a lowering in `edgeicl.emit.lowering` and a second implementation in
`edgeicl.quantize.bodies.table`; a test ties the three. What has no row goes through Optimum: `exported`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgeicl.errors import DataError
from edgeicl.models.anatomy import Anatomy
from edgeicl.models.architectures import exported, gpt2, llama, opt

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
    model_type, known = config.get("model_type"), ", ".join(sorted(ARCHITECTURES))
    if not isinstance(model_type, str):
        raise DataError(
            f"config.json has model_type {model_type!r}; expected the name of an architecture, such as one of "
            f"{known}",
            next_step="take config.json from where the model came from",
        )
    if model_type in ARCHITECTURES:
        return ARCHITECTURES[model_type](config)
    return exported.anatomy(config, known)
