"""What `edgeicl compare` finds: artifacts and rivals of one student, in turn, under the same conditions."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from edgeicl.specs.measurement import Conditions, Fidelity
from edgeicl.specs.spec import Spec


class Round(Spec):
    """One process of one engine."""

    load_ms: float
    first_token_ms: float
    prefill_tokens_per_second: float
    decode_tokens_per_second: float | None = Field(description="Null where nothing is decoded.")
    baseline_rss_bytes: int = Field(description="Peak memory before the model is loaded: the libraries.")
    peak_rss_bytes: int
    first_token_samples_ms: tuple[float, ...]
    decode_samples_ms: tuple[tuple[float, ...], ...]


class Contestant(Spec):
    """One artifact or rival: what it ran, and its rounds in the order of time."""

    name: str
    description: str
    file_bytes: int = Field(description="Graph and weights.")
    rounds: tuple[Round, ...] = Field(min_length=1)


class ArtifactContestant(Contestant):
    """An artifact, with how near it comes to the memory's speed."""

    sha256: str
    bytes_per_token: int | None = Field(
        description="Weight and cache bytes that one decoded token reads; null where nothing is decoded."
    )
    ceiling_shares: tuple[float, ...] = Field(
        description="Of each round: decode tokens/s times bytes_per_token, over the read bandwidth that the "
        "fastest probe found right after it. Empty where nothing is decoded."
    )


class RivalContestant(Contestant):
    """A rival that was shown to compute the student."""

    versions: dict[str, str] = Field(description="Of its libraries and its Python.")
    logit_error: float = Field(description="Norm of its logits minus transformers' in fp32, over theirs.")
    logit_tolerance: float = Field(description="What was allowed for its precision.")


class NotMeasured(Spec):
    """A rival that was asked for and has no figures."""

    name: str
    reason: str


class Ratio(Spec):
    """Ours over theirs: the median over rounds with its interval, and the value of each round."""

    median: float
    low: float
    high: float
    confidence: float = Field(
        description="Of the interval; of few rounds, whose range it is, below 0.95; of one 0."
    )
    values: tuple[float, ...]

    @property
    def width(self) -> float:
        """Of the interval, as a share of the median."""
        return (self.high - self.low) / self.median


class Pairing(Spec):
    """One artifact over one rival."""

    artifact: str
    rival: str
    first_token: Ratio = Field(description="Time to the first token; below 1 is faster.")
    prefill: Ratio = Field(description="Prefill tokens per second; above 1 is faster.")
    decode: Ratio | None = Field(
        description="Decode tokens per second; above 1 is faster. Null where nothing is decoded."
    )
    file_bytes: float = Field(description="Graph and weights; below 1 is smaller.")
    peak_rss: Ratio = Field(description="Peak resident memory of the process; below 1 is smaller.")


class Comparison(Spec):
    """Each round runs every contestant once, in a process of its own; every other round in reverse order."""

    version: Literal[4] = 4
    fidelity: Fidelity
    conditions: Conditions = Field(description="As the first artifact's runtime told them.")
    weights: str = Field(description="What the rivals were built from.")
    artifacts: tuple[ArtifactContestant, ...] = Field(min_length=1)
    rivals: tuple[RivalContestant, ...]
    not_measured: tuple[NotMeasured, ...]
    pairings: tuple[Pairing, ...] = Field(description="Every artifact with every rival.")
    bandwidth_bytes_per_second: float | None = Field(
        None,
        description="Memory bandwidth of the machine meanwhile, by a probe after each of our rounds; median. "
        "Null on a GPU.",
    )
    other_work: tuple[float, ...] = Field(
        (),
        description="Before each round: share of all cores' time that other processes took. Empty: unknown.",
    )
    doubts: tuple[str, ...] = Field(
        (), description="What speaks against the figures: rounds that disagree, other work. Empty: nothing."
    )
    notes: tuple[str, ...] = ()


RatioName = Literal["first_token", "prefill", "decode", "peak_rss"]
RATIOS: tuple[RatioName, ...] = get_args(RatioName)
"""Fields of `Pairing` that are measured anew in every round."""


class Repeat(Spec):
    """A ratio of one artifact to one rival in several comparisons."""

    artifact: str
    rival: str
    what: RatioName
    medians: tuple[float, ...] = Field(min_length=2, description="Of each comparison, in the order of time.")
    median: float = Field(description="Of the medians.")
    deviation: float = Field(description="Farthest of the medians from their median, as a share of it.")
    repeats: bool = Field(description="Whether that is at most `allowed_deviation`, on a quiet computer.")


class RepeatedComparison(Spec):
    """The same comparison several times over: whether its ratios can be had again."""

    version: Literal[2] = 2
    runs: tuple[Comparison, ...] = Field(min_length=2)
    allowed_deviation: float
    quiet: bool | None = Field(
        description="Whether other processes took next to nothing before every round; null: not known."
    )
    doubts: tuple[str, ...] = Field(
        (), description="What speaks against the figures of one run or another. Empty: nothing."
    )
    repeats: tuple[Repeat, ...] = Field(description="Of rivals that were measured in every run.")
    notes: tuple[str, ...] = ()
