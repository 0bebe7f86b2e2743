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
    repetitions: int = Field(description="At least; all that were taken are kept.")
    least_s: float = Field(0.0, description="Seconds for which repetitions go on, at least.")


class DeviceFacts(Spec):
    """What the device says of itself, read where the artifact ran; unknown is null or empty."""

    address: str = Field("local", description="As given with --on.")
    system: str
    architecture: str
    processor: str
    soc: str | None = Field(None, description="The chip, as the device calls it.")
    model: str | None = Field(None, description="The device, as people call it.")
    features: tuple[str, ...] = Field((), description="Instructions by which kernels are chosen.")
    logical_cores: int
    affinity: tuple[int, ...] = Field((), description="Cores that the process could run on, by number.")
    memory_bytes: int | None = Field(None, description="Of the whole device.")
    max_mhz: tuple[float | None, ...] = Field((), description="Of each core of `affinity`.")
    limits: tuple[str, ...] = Field((), description="Limits that were set, and what held them.")


class DeviceState(Spec):
    """What changes while a measurement runs; unknown is null or empty."""

    when: str = Field(description="before, after, or after which repetition.")
    governors: tuple[str, ...] = ()
    current_mhz: tuple[float | None, ...] = Field((), description="Of each core of the affinity.")
    limit_mhz: tuple[float | None, ...] = Field((), description="What the governor allows each core now.")
    temperatures_c: dict[str, float] = Field(default_factory=dict, description="By sensor.")
    battery_percent: float | None = None
    load_average: float | None = Field(None, description="Over the last minute.")
    throttle_events: int | None = Field(None, description="Since the system started, where it counts them.")
    told_by_tools: dict[str, str | float | bool | None] = Field(
        default_factory=dict, description="What the device's own tools say, such as Android's thermal status."
    )


class LengthTest(Spec):
    """llama-bench's `pp` (reading a prompt) or `tg` (decoding one by one), behind `depth` cached positions."""

    kind: Literal["pp", "tg"]
    tokens: int
    depth: int = 0
    samples_ms: tuple[float, ...] = Field(min_length=1, description="Of the whole test; one a repetition.")
    tokens_per_second: float = Field(description="Mean over repetitions.")
    tokens_per_second_deviation: float | None = Field(
        description="Standard deviation over repetitions; null for one."
    )

    @property
    def name(self) -> str:
        """As llama-bench writes it: `pp512`, `tg32 @ d512`."""
        return f"{self.kind}{self.tokens}" + (f" @ d{self.depth}" if self.depth else "")


class SustainedWindow(Spec):
    """A part of a sustained load."""

    start_s: float
    end_s: float
    prefill_tokens_per_second: float
    decode_tokens_per_second: float | None
    state: DeviceState = Field(description="At its end.")


class Sustained(Spec):
    """The same repetition without pause for minutes."""

    seconds: float
    windows: tuple[SustainedWindow, ...] = Field(min_length=1)
    last_over_first: float = Field(
        description="Speed in the last window over that in the first: decode, or prefill where none is decoded."
    )


class BenchResult(Spec):
    """What `edgeicl bench` measures. Raw repetitions are kept; unknown is null.

    Version 1 had nothing of loads, tests, device and states.
    """

    version: Literal[1, 2] = 2
    fidelity: Fidelity
    conditions: Conditions
    load_ms: float = Field(description="In a fresh process; the first of the two below where both are known.")
    cold_load_ms: float | None = Field(
        None, description="After the file cache had forgotten the artifact; null where it can't be told to."
    )
    warm_load_ms: float | None = Field(None, description="Right after, in another process.")
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
    attempts: int = Field(1, description="Runs until one was quiet enough, this one included.")
    cooled_s: float = Field(0.0, description="Seconds of waiting between repetitions.")
    tests: tuple[LengthTest, ...] = Field(
        (), description="Prefill and decode at the lengths and depths asked for."
    )
    sustained: Sustained | None = None
    device: DeviceFacts | None = None
    states: tuple[DeviceState, ...] = ()
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
    device: str = Field("local", description="Where it ran, as given with --on.")
    same_answers: float | None = Field(
        None, description="Share of the examples that are answered as on this computer, where it ran elsewhere."
    )
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
