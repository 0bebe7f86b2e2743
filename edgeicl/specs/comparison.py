"""What `edgeicl compare` finds: two engines on the same model shape, in turn, under the same conditions."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeicl.specs.measurement import Conditions, Fidelity
from edgeicl.specs.spec import Spec


class Round(Spec):
    """One process of one engine."""

    load_ms: float
    first_token_ms: float
    prefill_tokens_per_second: float
    decode_tokens_per_second: float | None = Field(description="Null where nothing is decoded.")
    peak_rss_bytes: int
    first_token_samples_ms: tuple[float, ...]
    decode_samples_ms: tuple[tuple[float, ...], ...]


class Contestant(Spec):
    """One engine: what it ran, and its rounds in the order of time."""

    name: str
    description: str
    file_bytes: int = Field(description="Graph and weights.")
    rounds: tuple[Round, ...] = Field(min_length=1)


class Ratio(Spec):
    """Ours over theirs, one value per round."""

    median: float
    low: float
    high: float
    values: tuple[float, ...]


class Comparison(Spec):
    """Rounds were run A B A B, each in a process of its own."""

    version: Literal[1] = 1
    fidelity: Fidelity
    conditions: Conditions
    ours: Contestant
    rival: Contestant
    bandwidth_bytes_per_second: float = Field(
        description="Memory bandwidth of the machine meanwhile, by a probe after each of our rounds."
    )
    decode_ratio: Ratio | None = Field(
        description="Decode tokens per second; above 1 is faster. Null where nothing is decoded."
    )
    prefill_ratio: Ratio = Field(description="Prefill tokens per second; above 1 is faster.")
    peak_rss_ratio: Ratio = Field(description="Peak resident memory; below 1 is smaller.")
    notes: tuple[str, ...] = ()
