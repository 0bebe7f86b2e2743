"""Which plans there are for a model on a target: formats of groups, bits of the cache, ways to read prompts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from edgeicl.errors import DataError
from edgeicl.models.anatomy import EMBEDDING, Anatomy, WeightGroup
from edgeicl.numerics.decode_reads import read_bytes
from edgeicl.numerics.size import group_bytes, held_bytes, held_bytes_on_gpu
from edgeicl.quantize.budget import WeightBudget
from edgeicl.quantize.first_token import FirstTokenTime, first_token_time
from edgeicl.quantize.latency import DecodeTime
from edgeicl.quantize.offered_formats import offered_formats
from edgeicl.quantize.plan_space import PlanSpace
from edgeicl.specs.quant_plan import ActivationBits, CacheBits, Format, PromptAttention, rounds_after_prompts
from edgeicl.specs.target import Calibration

log = logging.getLogger(__name__)


def plan_space(
    anatomy: Anatomy,
    formats: Sequence[Format],
    budget: WeightBudget,
    *,
    by_block: bool,
    label_head: bool = False,
    calibration: Calibration | None = None,
    decode_limit_ms: float | None = None,
    provider: Literal["cpu", "cuda"] = "cpu",
    activation_bits: ActivationBits = 32,
    prompt_tokens: int = 1,
    first_token_limit_ms: float | None = None,
    prompt_format: Format | None = None,
    copy_advised: bool = False,
    score_bytes: int | None = None,
    cache_bits: CacheBits = 32,
    rounded_bytes: int = 0,
) -> PlanSpace:
    """The plans of a model's groups in `formats`.

    Args:
        by_block: Whether all groups of a decoder block share a format.
        label_head: Whether labels' rows are the head; then tokens are looked up in the embedding, and none
            decoded.
        calibration: What the time of a decoded token is predicted by.
        decode_limit_ms: The most that it may take.
        provider: Whose memory holds the groups.
        activation_bits: Of scales too.
        prompt_tokens: Prompt whose time is predicted.
        first_token_limit_ms: The most that it may take.
        prompt_format: Of a second copy of the layers' weights that may be stored to keep that limit.
        copy_advised: Whether the target should be told to offer one where the limit can't be kept.
        score_bytes: Of attention to the whole context at once, where that is possible. It is offered where it
            is faster, and where there is such a limit or nothing but prompts.
        cache_bits: Of a key or a value.
        rounded_bytes: Of a layer's keys and values while they become integers after attention.

    Raises:
        DataError: a group that none of the formats fits.
    """
    offered = {group: offered_formats(group, formats) for group in anatomy.groups}
    if without := [group.name for group, fitting in offered.items() if not fitting]:
        raise DataError(
            f"none of the target's formats ({', '.join(map(str, formats))}) fits {', '.join(without)}",
            next_step="offer a format with a block_size in numbers, or a floating-point format",
        )
    if unused := [str(f) for f in formats if not any(f in fitting for fitting in offered.values())]:
        log.info("no weight group has rows that blocks of %s divide", ", ".join(unused))
    scale_bytes = activation_bits // 8

    def multiplied(group: WeightGroup) -> bool:
        return anatomy.multiplies(group) and not (label_head and group.name == EMBEDDING)

    def held(group: WeightGroup, format_: Format) -> int:
        looked_up = group.name == EMBEDDING
        if provider == "cuda":
            twice = looked_up and multiplied(group)
            return held_bytes_on_gpu(*group.shape, format_, scale_bytes=scale_bytes, looked_up=twice)
        return held_bytes(*group.shape, format_, looked_up=looked_up, multiplied=multiplied(group))

    decode = None
    if calibration is not None and not label_head:
        decode = DecodeTime(
            budget.target,
            reads={
                g.name: {
                    f: read_bytes(g.shape, f, calibration, scale_bytes) if multiplied(g) else 0 for f in each
                }
                for g, each in offered.items()
            },
            rest_bytes=budget.decoded_rest_bytes,
            bandwidth_bytes_per_second=calibration.bandwidth_bytes_per_second,
            fixed_ms=calibration.fixed_decode_ms_of(anatomy.layers),
            limit_ms=decode_limit_ms,
        )

    def first(copy: Format | None, attention: PromptAttention) -> FirstTokenTime | None:
        if calibration is None:
            return None
        return first_token_time(
            budget.target,
            anatomy,
            offered,
            calibration,
            prompt_tokens=prompt_tokens,
            limit_ms=first_token_limit_ms,
            multiplied=multiplied,
            prompt_format=copy,
            copy_advised=copy_advised,
            attention=attention,
            cache_bits=cache_bits,
        )

    space = PlanSpace(
        formats,
        stored={
            g.name: {f: group_bytes(*g.shape, f, scale_bytes=scale_bytes) for f in fitting}
            for g, fitting in offered.items()
        },
        held={g.name: {f: held(g, f) for f in fitting} for g, fitting in offered.items()},
        units={
            group.name: f"layers.{group.layer}" if by_block and group.layer is not None else group.name
            for group in anatomy.groups
        },
        budget=budget,
        decode=decode,
        first=first(None, "tiled"),
    )

    def reading(copy: Format | None, attention: PromptAttention) -> PlanSpace:
        of = budget
        if copy is not None:
            layers = [group for group in anatomy.groups if group.layer is not None]
            of = of.with_prompt_copy(anatomy.layers, sum(group_bytes(*group.shape, copy) for group in layers))
        if attention == "whole" and score_bytes is not None:
            of = of.with_whole_attention(score_bytes)
        if rounds_after_prompts(cache_bits, copy, attention):
            of = of.with_rounding_after(anatomy.layers, rounded_bytes)
        time = first(copy, attention)
        return replace(space, budget=of, first=time, prompt_format=copy, prompt_attention=attention)

    limited = first_token_limit_ms is not None
    copies = [None, prompt_format] if prompt_format is not None and limited else [None]
    ways: list[tuple[Format | None, PromptAttention]] = [(copy, "tiled") for copy in copies]
    faster = calibration is not None and calibration.whole_attention_is_faster
    if faster and score_bytes is not None and (limited or label_head):
        # a branch in every layer would take its time of every token that is decoded
        ways += [(copy, "whole") for copy in copies if copy is not None or cache_bits != 8 or label_head]
    return replace(space, others=tuple(reading(*way) for way in ways[1:]))
