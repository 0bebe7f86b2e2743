"""What one query moves and computes: a proxy of its energy, counted and not measured.

Bytes: the weights once for every pass, and keys and values of every position that a pass sees. Intermediate
results are left out; they are small where a model is large. FLOPs: see `models.flops`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from edgeicl.bench.artifact import Artifact
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.flops import prompt_flops
from edgeicl.models.model_folder import model_config


@dataclass(frozen=True)
class Pass:
    """One run of a model: it reads `tokens` with the keys and values of `before` tokens at hand."""

    tokens: int
    before: int


@dataclass(frozen=True)
class QueryCost:
    """Of one query. `flops` is None where operations can't be counted."""

    bytes: int
    flops: int | None


def passes_of(query: int, before: int, answers: Sequence[Sequence[int]], *, cached: bool) -> list[Pass]:
    """The query, then tokens of long labels. Without `cached` what stands `before` is read with the query."""
    asked = Pass(query, before) if cached else Pass(before + query, 0)
    steps = [Pass(1, before + query + place) for answer in answers for place in range(len(answer) - 1)]
    return [asked, *steps]


def artifact_cost(artifact: Artifact, query: int, answers: Sequence[Sequence[int]]) -> QueryCost:
    """Of a query of `query` tokens; behind several sets it is asked once for each. Its rereads are counted.

    There are no FLOPs of a graph that another exporter wrote: of its operations nothing is known.
    """
    longer = sum(len(answer) > 1 for answer in answers)
    sets = [next(iter(rows.values())).shape[1] for rows in artifact.prefixes] or [0]
    passes = [
        each
        for before in sets
        for each in [
            *passes_of(query, before, answers, cached=True),
            *[Pass(query, before)] * max(0, longer - 1),
        ]
    ]
    moved = sum(artifact.weight_bytes_per_token + artifact.cache_bytes(p.before + p.tokens) for p in passes)
    if artifact.manifest.engine == "growing":
        return QueryCost(moved, None)
    config = model_config(artifact.path)
    logits = len(artifact.manifest.logit_tokens) if artifact.manifest.logit_tokens else None
    flops = sum(prompt_flops(config, tokens=p.tokens, before=p.before, logits=logits) for p in passes)
    return QueryCost(moved, flops)


def teacher_cost(config: Mapping[str, Any], passes: Sequence[Pass], *, number_bytes: int) -> QueryCost:
    """Of a model whose weights, keys and values are numbers of `number_bytes`, run as a checkpoint."""
    anatomy = anatomy_of(config)
    read = sum(
        prod(shape)
        for group in anatomy.groups
        if anatomy.multiplies(group)
        for shape in group.parameter_shapes.values()
    )
    read += sum(prod(shape) for shape in anatomy.others.values() if len(shape) == 1)
    position = 2 * anatomy.layers * anatomy.kv_heads * anatomy.head_size
    moved = sum(read + position * (each.before + each.tokens) for each in passes) * number_bytes
    flops = sum(
        prompt_flops(config, tokens=each.tokens, before=each.before, last_layer_alone=False) for each in passes
    )
    return QueryCost(moved, flops)


def weights_held(config: Mapping[str, Any], *, number_bytes: int) -> int:
    """Bytes of all weights of a checkpoint in numbers of `number_bytes`."""
    anatomy = anatomy_of(config)
    shapes = [shape for group in anatomy.groups for shape in group.parameter_shapes.values()]
    return number_bytes * sum(map(prod, [*shapes, *anatomy.others.values()]))
