"""Parts of the time in which a prompt is read, by what a probe measured; see `quantize.first_token`."""

from __future__ import annotations

from math import ceil

from edgeicl.models.anatomy import PROJECT_IN, Anatomy, WeightGroup
from edgeicl.specs.format_cost import FormatCost
from edgeicl.specs.quant_plan import CacheBits, Format, PromptAttention, rounds_after_prompts
from edgeicl.specs.target import Calibration


def product_nanoseconds(group: WeightGroup, cost: FormatCost, anatomy: Anatomy, prompt_tokens: int) -> int:
    """Of the product with a group in a format of that cost."""
    weights = group.shape[0] * group.shape[1]
    if _last_token_alone(group, anatomy):
        return ceil(weights * cost.decode_ps_per_weight * 1e-3)
    return ceil(weights * prompt_tokens * cost.prompt_ps_per_weight * 1e-3)


def rest_of_prompt_ms(
    anatomy: Anatomy,
    calibration: Calibration,
    tokens: int,
    attention: PromptAttention,
    *,
    cache_bits: CacheBits = 32,
    copy: Format | None = None,
) -> float | None:
    """Of all but the products: nodes, activations, attention, and rounding of keys and values.

    `copy` is the format of the layers that prompts are read with, if others than those of tokens. None where
    the calibration doesn't know integers in the cache.
    """
    numbers = tokens * sum(sum(group.shape) for group in anatomy.groups if group.layer is not None)
    products = 2 * anatomy.layers * anatomy.heads * anatomy.head_size * tokens**2
    each: float | None = calibration.attention_ps(attention)
    rounding: float | None = 0.0
    if rounds_after_prompts(cache_bits, copy, attention):
        rounding = calibration.cache_rounding_ps_per_number
    elif cache_bits == 8:
        each = calibration.integer_attention_ps_per_product
    if each is None or rounding is None:
        return None
    picoseconds = numbers * calibration.activation_ps_per_number + products * each
    picoseconds += 2 * anatomy.layers * anatomy.kv_width * tokens * rounding
    return calibration.fixed_prompt_ms_of(anatomy.layers) + picoseconds * 1e-9


def _last_token_alone(group: WeightGroup, anatomy: Anatomy) -> bool:
    if group.layer is None:
        return group.name != PROJECT_IN
    return group.layer == anatomy.layers - 1 and not group.name.endswith(".attention.qkv")
