"""From a target's memory to the bytes that weight groups may take.

    artifact = groups as stored + other tensors + other files        (files that are deployed)
    resident = groups as held + other tensors + tables that the runtime computes from none + KV cache + prefix
               + activations of a prompt + runtime                                             (the process)

The other files are the graph without its tensors, the tokenizer, the configuration and the prefix. They are
written after the plan is made, so they enter as an upper bound: the budget is kept whatever they turn out to
be.
A prefix is in memory twice: the file as it is read, and one set of it in the KV cache, whose context holds it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgeicl.errors import BudgetError, DataError
from edgeicl.models.anatomy import Anatomy
from edgeicl.numerics.size import cache_scale_bytes, kv_cache_bytes
from edgeicl.specs.byte_size import format_byte_size
from edgeicl.specs.manifest import Deviation
from edgeicl.specs.quant_plan import CacheBits
from edgeicl.specs.target import Target

# model.onnx without tensors: names, attributes and shapes. Found: 6,717 bytes at 1 layer, 51,178 at 12.
_GRAPH_BYTES = 4096
_GRAPH_BYTES_PER_LAYER = 4608
_GRAPH_BYTES_OF_HEAD_NORMS = 2048  # in each layer, where queries and keys are normed. Found: 1,500
_GRAPH_BYTES_OF_CACHE_SCALES = 512  # in each layer, where the cache holds integers. Found: 390
# in each layer where a format of integer products is offered, and where prompts have a branch of their own
_GRAPH_BYTES_OF_INTEGER_PRODUCTS = 3072  # Found: 2,700
_GRAPH_BYTES_OF_PROMPT_LAYER = 9216  # Found: 7,020
_GRAPH_BYTES_OF_ROUNDING_AFTER = 3072  # in each layer, of keys and values after attention. Found: 2,560
# generation_config.json, genai_config.json and tokenizer_config.json. Found: 1.2 kB.
_CONFIG_BYTES = 2048
# task.json beside its texts: keys, and the tokens of each word, at most one a byte, each on a line of its own.
_TASK_BYTES = 512
_TOKEN_LINE_BYTES = 12


@dataclass(frozen=True)
class WeightBudget:
    """What a target leaves for the weight groups of one model. All figures in bytes.

    The position table is of the other tensors, and the only one that a token reads a row of.
    """

    target: str
    artifact_limit_bytes: int | None
    resident_limit_bytes: int | None
    other_tensor_bytes: int
    other_file_bytes: int
    kv_cache_bytes: int
    prefill_bytes: int
    runtime_overhead_bytes: int
    prefix_bytes: int = 0
    computed_bytes: int = 0
    position_table_bytes: int = 0
    prompt_copy_bytes: int = 0
    attention_score_bytes: int = 0

    def artifact_bytes(self, stored_bytes: int) -> int:
        """Size of the deployed files, at most, when the groups take `stored_bytes` of them."""
        return stored_bytes + self.other_tensor_bytes + self.prompt_copy_bytes + self.other_file_bytes

    def resident_bytes(self, held_bytes: int) -> int:
        """Peak memory of the running process when it holds the groups in `held_bytes`."""
        prompt = self.prefill_bytes + self.attention_score_bytes
        rest = self.kv_cache_bytes + self.prefix_bytes + prompt + self.runtime_overhead_bytes
        # packed, and for a moment of loading beside the file's own pages of it
        copy = 2 * self.prompt_copy_bytes
        return held_bytes + copy + self.other_tensor_bytes + self.computed_bytes + rest

    @property
    def decoded_rest_bytes(self) -> int:
        """What a token reads at the end of the context beside the weight groups."""
        return self.other_tensor_bytes - self.position_table_bytes + self.kv_cache_bytes

    def with_prompt_copy(self, layers: int, copy_bytes: int) -> WeightBudget:
        """The same when all layers' weights are stored a second time, in so many bytes."""
        graph = layers * _GRAPH_BYTES_OF_PROMPT_LAYER
        return replace(self, prompt_copy_bytes=copy_bytes, other_file_bytes=self.other_file_bytes + graph)

    def with_whole_attention(self, score_bytes: int) -> WeightBudget:
        """The same when all scores of a layer, so many bytes, are in memory at once."""
        return replace(self, attention_score_bytes=score_bytes)

    def with_rounding_after(self, layers: int, rounded_bytes: int) -> WeightBudget:
        """The same when keys and values of prompts become integers after attention, in nodes of all layers.

        Those of a layer take `rounded_bytes` while they do.
        """
        files = self.other_file_bytes + layers * _GRAPH_BYTES_OF_ROUNDING_AFTER
        return replace(self, other_file_bytes=files, prefill_bytes=self.prefill_bytes + rounded_bytes)

    def require(
        self,
        *,
        stored_bytes: int,
        held_bytes: int,
        what: str,
        instead: str,
    ) -> None:
        """BudgetError if groups of these sizes break a limit, naming the size that `what` would take.

        `instead` is what can be done beside raising the limit.
        """
        for kind, limit, group_bytes, needed in (
            ("artifact_bytes", self.artifact_limit_bytes, stored_bytes, self.artifact_bytes(stored_bytes)),
            ("resident_bytes", self.resident_limit_bytes, held_bytes, self.resident_bytes(held_bytes)),
        ):
            if limit is not None and needed > limit:
                raise BudgetError(
                    f"target {self.target}: budget.{kind} is {limit} ({format_byte_size(limit)}), but {what} "
                    f"takes {needed} bytes ({format_byte_size(needed)}): {self._parts(kind, group_bytes)}",
                    smallest_bytes=needed,
                    next_step=f"set budget.{kind} of target {self.target} to at least {needed}, {instead}",
                )

    def _parts(self, kind: str, group_bytes: int) -> str:
        rest = (
            f"other files {self.other_file_bytes - self.prefix_bytes}"
            if kind == "artifact_bytes"
            else f"KV cache {self.kv_cache_bytes}, activations of a prompt {self.prefill_bytes}, runtime "
            f"{self.runtime_overhead_bytes}"
        )
        if kind == "resident_bytes":
            rest += f", scores of attention {self.attention_score_bytes}" * bool(self.attention_score_bytes)
            rest += f", tables of positions {self.computed_bytes}" * bool(self.computed_bytes)
        rest += (
            f", second copy of the layers for prompts {self.prompt_copy_bytes}"
            if self.prompt_copy_bytes
            else ""
        )
        rest += f", prefix {self.prefix_bytes}" if self.prefix_bytes else ""
        return f"weight groups {group_bytes}, other tensors {self.other_tensor_bytes}, {rest}"


def context_tokens(target: Target, positions: int) -> int:
    """Tokens that the artifact's context holds, of a model with so many `positions`."""
    return min(target.context_tokens, positions)


def task_file_bytes(
    pattern: str, verbalizers: Mapping[str, str], separator: str, *, label_rows: int = 0
) -> int:
    """Size of task.json, at most; `label_rows` as for `weight_budget`."""
    texts = len(json.dumps([pattern, separator, verbalizers, list(verbalizers)]))
    words = sum(len(word.encode()) for word in verbalizers.values())
    return _TASK_BYTES + texts + _TOKEN_LINE_BYTES * (words + label_rows)


def weight_budget(
    target: Target,
    anatomy: Anatomy,
    *,
    tokenizer_bytes: int,
    task_bytes: int,
    prefix_bytes: int = 0,
    label_rows: int = 0,
    cache_bits: CacheBits = 32,
) -> tuple[WeightBudget, tuple[Deviation, ...]]:
    """The budget of `target` for a model.

    `tokenizer_bytes` is the size of tokenizer.json, `task_bytes` that of task.json, `prefix_bytes` that of
    prefix.safetensors; `label_rows` counts the labels whose rows are the head, in fp32, if it is no tied one;
    `cache_bits` are of a key or a value.
    A target that budgets for more context than the model has positions is clamped, with a deviation.
    """
    context = context_tokens(target, anatomy.positions)
    deviations = []
    if context < target.context_tokens:
        deviations.append(
            Deviation(
                what="context_tokens",
                where=f"target {target.name}",
                asked=str(target.context_tokens),
                got=str(context),
                why=f"the student has {anatomy.positions} positions",
            )
        )
    configs = _CONFIG_BYTES + len(json.dumps(dict(anatomy.config), indent=1))
    per_layer = _GRAPH_BYTES_PER_LAYER + (_GRAPH_BYTES_OF_HEAD_NORMS if anatomy.head_norms else 0)
    per_layer += _GRAPH_BYTES_OF_CACHE_SCALES if cache_bits == 8 else 0
    if any(format_.by_row for format_ in target.formats):
        per_layer += _GRAPH_BYTES_OF_INTEGER_PRODUCTS
    graph = anatomy.graph_bytes or _GRAPH_BYTES + per_layer * anatomy.layers
    scale_bytes = cache_scale_bytes(anatomy.layers, anatomy.kv_width, bits=cache_bits)
    label_bytes = 4 * label_rows * anatomy.embedding_width
    halved = 32 // target.activation_bits  # what anatomy counts in fp32
    budget = WeightBudget(
        target=target.name,
        artifact_limit_bytes=target.budget.artifact_bytes,
        resident_limit_bytes=target.budget.resident_bytes,
        other_tensor_bytes=anatomy.fixed_tensor_bytes // halved + label_bytes + scale_bytes,
        other_file_bytes=tokenizer_bytes + task_bytes + graph + configs + prefix_bytes,
        kv_cache_bytes=kv_cache_bytes(anatomy.layers, anatomy.kv_width, context, bits=cache_bits),
        prefill_bytes=anatomy.activation_bytes(context) // halved,
        runtime_overhead_bytes=target.runtime_overhead_bytes,
        prefix_bytes=prefix_bytes,
        computed_bytes=anatomy.computed_bytes,
        position_table_bytes=anatomy.position_table_bytes // halved,
    )
    return budget, tuple(deviations)


def predicted_prompt(target: Target, positions: int) -> tuple[int, tuple[Deviation, ...]]:
    """Tokens of the prompt whose time is predicted; a deviation where the context holds less than is asked.

    `positions` are the model's.
    """
    context = context_tokens(target, positions)
    if target.prompt_tokens is None or target.prompt_tokens <= context:
        return target.prompt_tokens or context, ()
    deviation = Deviation(
        what="prompt_tokens",
        where=f"target {target.name}",
        asked=str(target.prompt_tokens),
        got=str(context),
        why=f"the context has {target.context_tokens} tokens, the student {positions} positions",
    )
    return context, (deviation,)


def require_room(target: Target, positions: int, *, prefix_tokens: int, query_tokens: int) -> None:
    """DataError unless the context holds the longest prefix and, behind it, a query with its label.

    `positions` are the model's; `query_tokens` are of the longest query known, with the longest label.
    """
    context = context_tokens(target, positions)
    if prefix_tokens + query_tokens > context:
        raise DataError(
            f"{prefix_tokens} tokens stand before every query, and a query takes up to {query_tokens} with its "
            f"label: {prefix_tokens + query_tokens} in all; found room for {context}: target {target.name} has "
            f"context_tokens {target.context_tokens}, the student {positions} positions",
            next_step=f"set context_tokens to {prefix_tokens + query_tokens} or more, or show fewer or shorter "
            "demonstrations",
        )
