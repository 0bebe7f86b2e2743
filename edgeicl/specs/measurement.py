"""Measurements: numbers with their units, their conditions, and how they were come by."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeicl.specs.spec import Spec

Fidelity = Literal["measured", "emulated", "predicted"]


class Percentiles(Spec):
    """Spread of a repeated time."""

    p50_ms: float
    p90_ms: float
    p99_ms: float


class Conditions(Spec):
    """What the measurement was taken on, as read back, not as asked for."""

    machine: str
    processor: str
    logical_cores: int
    threads: int
    runtime: str
    runtime_version: str
    providers: tuple[str, ...]
    artifact_sha256: str
    prefix_tokens: int = Field(0, description="Tokens that stood before the prompt, as keys and values.")
    prompt_tokens: int
    decode_tokens: int
    warmup_repetitions: int
    repetitions: int


class BenchResult(Spec):
    """What `edgeicl bench` measures. Raw repetitions are kept; unknown is null."""

    version: Literal[1] = 1
    fidelity: Fidelity
    conditions: Conditions
    load_ms: float
    first_token_ms: float = Field(description="Median time to first token: prefill of the whole prompt.")
    prefill_tokens_per_second: float
    decode_tokens_per_second: float | None = Field(
        description="Null, as all of decode, where nothing is decoded; `notes` say why."
    )
    decode_latency: Percentiles | None
    peak_rss_bytes: int
    artifact_bytes: int
    bytes_per_token: int | None = Field(None, description="Weight and cache bytes that one token reads.")
    prompt_flops: int | None = Field(None, description="Operations of the prompt's own tokens, counted.")
    whole_prompt_flops: int | None = Field(
        None, description="The same, had the tokens of the prefix to be computed with each prompt."
    )
    bandwidth_bytes_per_second: float | None = Field(
        None, description="Read bandwidth of this machine's memory, from beyond all caches."
    )
    token_bandwidth_bytes_per_second: float | None = Field(
        None,
        description="Read bandwidth over bytes_per_token again and again: higher where a cache holds them.",
    )
    bandwidth_probe: str | None = Field(None, description="The probe that read fastest.")
    ceiling_tokens_per_second: float | None = Field(
        None, description="The higher of the two bandwidths over bytes per token."
    )
    first_token_samples_ms: tuple[float, ...]
    decode_samples_ms: tuple[tuple[float, ...], ...] = Field(description="One row a repetition.")
    spread_ratio: float | None = Field(
        None,
        description="Decode speed, or prefill where nothing is decoded: fastest minus slowest repetition, over "
        "the median.",
    )
    baseline_rss_bytes: int | None = Field(None, description="Peak memory before the artifact was loaded.")
    notes: tuple[str, ...] = Field((), description="What a reader must know: clamped lengths, noise.")


class LabelledAccuracy(Spec):
    """How well an artifact answers labelled queries."""

    version: Literal[1] = 1
    data: str = Field(description="Where the examples came from.")
    examples: int
    accuracy: float
    balanced_accuracy: float = Field(description="Mean of the accuracies by label.")
    accuracy_by_label: dict[str, float] = Field(description="Labels that occur in the data.")
    macro_f1: float | None = Field(None, description="Mean F1 over labels that occur in the data.")
    by_group: dict[str, LabelledAccuracy] = Field(
        default_factory=dict, description="By the values of the source's `breakdown` column."
    )


class Estimate(Spec):
    """A mean with its interval (Student's t) over seeds."""

    mean: float
    low: float
    high: float
    confidence: float = 0.95
    values: tuple[float, ...]


class Ranking(Spec):
    """Where the right one of many candidate words was found (LAMA)."""

    precision_at_1: Estimate
    precision_at_10: Estimate
    mean_reciprocal_rank: Estimate


class GroupAccuracy(Spec):
    """A method on the examples of one value of the `breakdown` column, such as a heuristic of HANS."""

    group: str
    accuracy: Estimate
    balanced_accuracy: Estimate
    macro_f1: Estimate
    accuracy_by_label: dict[str, Estimate]
    examples: int


class PairedTest(Spec):
    """A method minus a baseline on the same examples; see `numerics.paired_test`."""

    method: str
    baseline: str
    data: Literal["in_domain", "out_of_domain"]
    points: float = Field(description="Mean difference in accuracy, points.")
    low: float
    high: float
    p_value: float = Field(description="Two-sided, of the sign-flip permutation test over examples.")
    examples: int


class AccuracyRow(Spec):
    """One method on one data set, over all demonstration seeds."""

    method: str
    data: Literal["in_domain", "out_of_domain"]
    accuracy: Estimate
    balanced_accuracy: Estimate
    accuracy_by_label: dict[str, Estimate]
    examples: int
    macro_f1: Estimate | None = None
    ranking: Ranking | None = Field(None, description="Of tasks with more than ten labels.")
    groups: tuple[GroupAccuracy, ...] = ()


class QueryCost(Spec):
    """What one query of median length costs behind plain demonstrations, and behind what stands for them."""

    query_tokens: int
    demonstrations: int
    demonstration_tokens: int = Field(description="Of the plain demonstrations, read anew with each query.")
    prefix_tokens: int = Field(description="Positions whose keys and values are computed once.")
    plain_flops: int = Field(description="Floating-point operations; a multiply-add is two.")
    prefix_flops: int

    @property
    def saved_share(self) -> float:
        """Share of the operations that is saved."""
        return 1.0 - self.prefix_flops / self.plain_flops


class Evaluation(Spec):
    """Everything the recipe layer found out."""

    version: Literal[1] = 1
    gain_points: Estimate | None = Field(
        None,
        description="Teacher with demonstrations minus without, over seeds: points of balanced accuracy on "
        "transfer examples, not on the evaluation data of `rows`. Of icl the tuned teacher with, "
        "minus the given one without.",
    )
    gain_certain: bool = Field(
        True, description="Whether that is clearly above zero; else distill.require_gain was false."
    )
    rows: tuple[AccuracyRow, ...]
    deployed_seed: int | None = Field(None, description="Demonstration seed of the student that is compiled.")
    query_cost: QueryCost | None = Field(None, description="Of a student that something stands before.")
    paired_tests: tuple[PairedTest, ...] = Field((), description="The method against each other row.")
