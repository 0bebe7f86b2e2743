"""A config.json with the defaults of its architecture, refused with everything in it that isn't supported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeicl.errors import DataError

HEAD_SIZE_MULTIPLE = 8
"""Of the heads that onnxruntime's attention takes; rotary ones need more."""
_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


def checked(
    config: Mapping[str, Any],
    defaults: Mapping[str, Any],
    required: Mapping[str, Any],
    unsupported: Sequence[str] = (),
) -> dict[str, Any]:
    """`config` with its `defaults` filled in.

    `unsupported` is what the architecture found amiss in it, one text each.

    Raises:
        DataError: something unsupported, or a value other than the one `required` for its key; names them all.
    """
    full = {**defaults, **config}
    other = [key for key, want in required.items() if full[key] != want]
    wrong = [*(f"{key} = {full[key]!r} (expected {required[key]!r})" for key in other), *unsupported]
    if wrong:
        raise DataError(
            f"this {config['model_type']} model is not supported: {'; '.join(wrong)}",
            next_step="use a model without these settings; the README lists the models that edgeicl compiles",
        )
    return full


def special_ids(config: Mapping[str, Any], own: Mapping[str, int]) -> dict[str, int | list[int]]:
    """Special tokens of `config`, else the architecture's `own`; without those that neither has.

    A model without a padding token is given the one that ends a text: what is padded with is never read.

    Raises:
        DataError: no token ends a text.
    """
    named = {key: config[key] for key in _SPECIAL if config.get(key) is not None}
    found: dict[str, int | list[int]] = {**own, **named}
    if "eos_token_id" not in found:
        raise DataError(
            "config.json has no eos_token_id, the token that ends a text; expected a number",
            next_step="copy it from the model's generation_config.json into its config.json",
        )
    end = found["eos_token_id"]
    found.setdefault("pad_token_id", end[0] if isinstance(end, list) else end)
    return {key: found[key] for key in _SPECIAL if key in found}


def head_size_problem(width: int, heads: int, multiple: int) -> str | None:
    """What is wrong with `heads` that share `width` numbers, if anything; each must have a `multiple`."""
    if width > 0 and width % (heads * multiple) == 0:
        return None
    return (
        f"{heads} attention heads over a width of {width} make heads of {width / heads:g} "
        f"(expected a multiple of {multiple}, as onnxruntime's attention takes)"
    )
