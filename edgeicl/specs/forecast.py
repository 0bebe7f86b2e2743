"""What a build will give and has to do, told before any of it is done."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeicl.specs.manifest import Deviation
from edgeicl.specs.spec import Spec

StageState = Literal["in the store", "to be built", "after that", "every time"]


class ForecastSize(Spec):
    """One way to store the model, and what it takes: both figures predicted."""

    label: str
    cache_bits: int | None = Field(None, description="Of a key or a value; null: whichever gives the figure.")
    artifact_bytes: int
    resident_bytes: int
    decode_ms: float | None = Field(None, description="Of a token at the end of the context, where known.")
    first_token_ms: float | None = Field(None, description="Of reading a prompt, where known.")
    fits: bool | None = Field(
        description="Whether it keeps every limit of the budget; null where the figures are of no one plan."
    )


class StageAhead(Spec):
    """A stage of the build, in the order in which they run."""

    stage: str
    state: StageState = Field(
        description="to be built: the first that has no output in the store; after that: follows it, and is "
        "known to be built or not once it is there."
    )
    seconds: float | None = Field(
        None, description="That it will take here, estimated; null where nothing is, and for what is stored."
    )


class TargetForecast(Spec):
    """What the build for one target will give. All sizes are predicted, in bytes."""

    target: str
    artifact_limit_bytes: int | None
    resident_limit_bytes: int | None
    decode_limit_ms: float | None = None
    first_token_limit_ms: float | None = None
    prompt_tokens: int | None = Field(None, description="Of the prompt that first_token_ms is of.")
    prompt_copy_bytes: int = Field(
        0, description="Of the layers' second copy for prompts; the best or the given plan alone has it."
    )
    given: ForecastSize | None = Field(None, description="The plan of quantize.plan, whether it fits or not.")
    best: ForecastSize | None = Field(
        description="The plan that is expected; null where none fits, or where one is given."
    )
    smallest: ForecastSize = Field(description="The least of each figure that some plan takes.")
    largest: ForecastSize = Field(description="The most of each.")
    uniform: tuple[ForecastSize, ...] = Field(description="All groups in one format.")
    other_tensor_bytes: int
    other_file_bytes: int = Field(description="An upper bound, prefix included.")
    prefix_bytes: int
    cache_bits: int = Field(32, description="Of a key or a value; of the plan that is expected.")
    kv_cache_bytes: int
    activation_bytes: int
    attention_score_bytes: int = Field(
        0, description="Of attention to a prompt with all scores at once, where the plan shown has it."
    )
    runtime_overhead_bytes: int
    groups: int
    to_measure: int = Field(description="Losses of a group in a format that the build has to measure.")
    measured: int = Field(description="Those that are in the store.")
    calibration_tokens: int = Field(description="On which they are measured.")
    stages: tuple[StageAhead, ...]
    deviations: tuple[Deviation, ...] = ()
    problem: str | None = Field(
        None,
        description="Why no plan fits, or the given one doesn't, and what to do: the build's own message.",
    )


class Forecast(Spec):
    """The whole build."""

    version: Literal[1] = 1
    recipe: str
    stages: tuple[StageAhead, ...] = Field(description="Of the recipe layer, once for all targets.")
    targets: tuple[TargetForecast, ...]
    deviations: tuple[Deviation, ...] = ()
