"""From a target's memory to the bytes that weight groups may take.

    artifact = group bytes + other tensors + other files        (files that are deployed)
    resident = group bytes + other tensors + KV cache + runtime (the process that runs them)

The other files are the graph without its tensors, the tokenizer and the configuration. They are written
after the plan is made, so they enter as an upper bound: the budget is kept whatever they turn out to be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgeicl.errors import BudgetError
from edgeicl.numerics.size import fixed_tensor_bytes, kv_cache_bytes
from edgeicl.specs.byte_size import format_byte_size
from edgeicl.specs.manifest import Deviation
from edgeicl.specs.target import Target

# model.onnx without tensors: names, attributes and shapes. Found: 10,628 bytes at 2 layers, 51,178 at 12.
_GRAPH_BYTES = 8 * 1024
_GRAPH_BYTES_PER_LAYER = 6 * 1024
# config.json, generation_config.json, genai_config.json, task.json, tokenizer_config.json. Found: 2 kB.
_CONFIG_BYTES = 16 * 1024


@dataclass(frozen=True)
class WeightBudget:
    """What a target leaves for the weight groups of one model. All figures in bytes."""

    target: str
    artifact_limit_bytes: int | None
    resident_limit_bytes: int | None
    other_tensor_bytes: int
    other_file_bytes: int
    kv_cache_bytes: int
    runtime_overhead_bytes: int

    def artifact_bytes(self, group_bytes: int) -> int:
        """Size of the deployed files, at most, when the groups take `group_bytes`."""
        return group_bytes + self.other_tensor_bytes + self.other_file_bytes

    def resident_bytes(self, group_bytes: int) -> int:
        """Memory of the running process when the groups take `group_bytes`."""
        return group_bytes + self.other_tensor_bytes + self.kv_cache_bytes + self.runtime_overhead_bytes

    @property
    def limit_bytes(self) -> int:
        """The most that the groups may take under every limit given; negative where nothing is left."""
        limits = []
        if self.artifact_limit_bytes is not None:
            limits.append(self.artifact_limit_bytes - self.artifact_bytes(0))
        if self.resident_limit_bytes is not None:
            limits.append(self.resident_limit_bytes - self.resident_bytes(0))
        return min(limits)

    def require(self, group_bytes: int, *, what: str) -> None:
        """BudgetError if groups of `group_bytes` break a limit, naming the size that `what` would take."""
        for kind, limit, needed in (
            ("artifact_bytes", self.artifact_limit_bytes, self.artifact_bytes(group_bytes)),
            ("resident_bytes", self.resident_limit_bytes, self.resident_bytes(group_bytes)),
        ):
            if limit is not None and needed > limit:
                raise BudgetError(
                    f"target {self.target}: budget.{kind} is {limit} ({format_byte_size(limit)}), but {what} "
                    f"takes {needed} bytes ({format_byte_size(needed)}): {self._parts(kind, group_bytes)}",
                    smallest_bytes=needed,
                    next_step=f"set budget.{kind} of target {self.target} to at least {needed}, offer it "
                    "formats with fewer bits, or choose a smaller student",
                )

    def _parts(self, kind: str, group_bytes: int) -> str:
        rest = (
            f"other files {self.other_file_bytes}"
            if kind == "artifact_bytes"
            else f"KV cache {self.kv_cache_bytes}, runtime {self.runtime_overhead_bytes}"
        )
        return f"weight groups {group_bytes}, other tensors {self.other_tensor_bytes}, {rest}"


def weight_budget(
    target: Target, config: Mapping[str, Any], *, tokenizer_bytes: int
) -> tuple[WeightBudget, tuple[Deviation, ...]]:
    """The budget of `target` for the model with this (complete) OPT configuration.

    A target that budgets for more context than the model has positions is clamped, with a deviation.
    """
    layers, hidden = int(config["num_hidden_layers"]), int(config["hidden_size"])
    positions = int(config["max_position_embeddings"])
    context = min(target.context_tokens, positions)
    deviations = []
    if context < target.context_tokens:
        deviations.append(
            Deviation(
                what="context_tokens",
                where=f"target {target.name}",
                asked=str(target.context_tokens),
                got=str(context),
                why=f"the student has {positions} positions",
            )
        )
    graph = _GRAPH_BYTES + _GRAPH_BYTES_PER_LAYER * layers
    # The position table is emitted without the two rows that OPT leaves unused.
    budget = WeightBudget(
        target=target.name,
        artifact_limit_bytes=target.budget.artifact_bytes,
        resident_limit_bytes=target.budget.resident_bytes,
        other_tensor_bytes=fixed_tensor_bytes(layers, hidden, int(config["ffn_dim"]), positions),
        other_file_bytes=tokenizer_bytes + graph + _CONFIG_BYTES,
        kv_cache_bytes=kv_cache_bytes(layers, hidden, context),
        runtime_overhead_bytes=target.runtime_overhead_bytes,
    )
    return budget, tuple(deviations)
