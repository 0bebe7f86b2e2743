"""Predictions of speed, and how far their methods were off on devices that they had not seen."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeicl.specs.spec import Spec

Method = Literal["specification", "published", "probe"]


class HoldOut(Spec):
    """Errors |predicted / published - 1| of tokens a second, where what is predicted was not used."""

    method: Method
    what: str = Field(description="What was held out, and what was used.")
    points: int
    devices: int
    socs: int
    median_error: float
    p90_error: float
    low_factor: float = Field(description="10 % of the published speeds were below predicted times this.")
    high_factor: float = Field(description="10 % were above predicted times this.")
    coverage: float | None = Field(
        None, description="Share of points within such an interval that was made from the other chips alone."
    )


class Interval(Spec):
    """A predicted value between low and high; the field that holds it says what these are."""

    value: float
    low: float
    high: float


class Prediction(Spec):
    """What an artifact does on a target that is not at hand."""

    version: Literal[1] = 1
    fidelity: Literal["predicted"] = "predicted"
    target: str
    artifact_sha256: str
    method: Method
    hold_out: HoldOut | None = Field(
        description="Of the decode speed's method; null where nothing was held out for it."
    )
    depth_tokens: int = Field(description="Positions that a token reads the keys and values of.")
    bytes_per_token: int
    decode_tokens_per_second: Interval | None = Field(
        description="Within the interval in about 80 % of what was held out (`hold_out`), which has no width "
        "where nothing was, and low 0 where the value is the most that could be; null where nothing is decoded."
    )
    prompt_tokens: int
    first_token_ms: Interval | None = Field(
        description="From the most to the least operations a second that published engines reach on chips of "
        "this kind, for which nothing was held out; null where the device's arithmetic is unknown."
    )
    resident_bytes: int = Field(description="Weights as held, cache, activations and runtime, by the plan.")
    notes: tuple[str, ...] = ()


class Validation(Spec):
    """Every method of prediction on what it had not seen."""

    version: Literal[1] = 1
    hold_outs: tuple[HoldOut, ...]
    left_out: dict[str, int] = Field(description="Why published speeds were left out, and how many.")
    share: float = Field(description="Of the specified bandwidth that a token of 1 GB reaches.")
    slope: float = Field(description="Of that share's logarithm by the logarithm of a token's bytes.")
    any_probe_median_error: float = Field(
        description="Where a probe has the same bits as what is predicted, and any size."
    )
    shuffled_median_error: float = Field(
        description="Of the first method with the chips' bandwidths exchanged: what chance gives."
    )
