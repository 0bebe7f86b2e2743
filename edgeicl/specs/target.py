"""The target: facts about a device that can't be detected from here, each with its source."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from edgeicl.specs.byte_size import ByteSize
from edgeicl.specs.format_cost import FormatCost
from edgeicl.specs.quant_plan import ActivationBits, CacheBits, Format, PromptAttention
from edgeicl.specs.spec import Name, Spec

VNNI = ("avx512_vnni", "avx_vnni")
"""Instructions of x86-64 that add up products of 8-bit integers in 32 bits; avx2 has 16 for two of them."""

_BUSY = 1.5  # of `disturbance`
_CLEARLY_FASTER = 0.9  # as long; nearer than that two measurements may be equal


class Budget(Spec):
    """What the result may take: `artifact` counts files, `resident` the process, `decode` a token's time."""

    artifact_bytes: ByteSize | None = Field(None, description="Bytes of all files that an app needs.")
    resident_bytes: ByteSize | None = Field(
        None, description="Memory of weights, key/value cache, activations of a prompt, and runtime."
    )

    decode_ms: float | None = Field(
        None,
        gt=0.0,
        description="Predicted milliseconds of a decoded token at the end of the context; needs a calibration.",
    )
    first_token_ms: float | None = Field(
        None,
        gt=0.0,
        description="Predicted milliseconds of reading a prompt of prompt_tokens; needs calibration.costs.",
    )

    @model_validator(mode="after")
    def _one_given(self) -> Budget:
        if all(value is None for value in self.model_dump().values()):
            raise ValueError(
                f"no budget given; expected one of {', '.join(type(self).model_fields)}, or several"
            )
        return self


class BitsBandwidth(Spec):
    """What weights of one width are read at."""

    bits: Literal[2, 4, 8, 32] = Field(description="Bits of one weight in memory; fp16 is held in 32.")
    bandwidth_bytes_per_second: float = Field(
        gt=0.0, description="Bytes a second at which weights of so many bits are read while tokens are decoded."
    )


class Calibration(Spec):
    """Measured speeds of the device, for predictions."""

    bandwidth_bytes_per_second: float = Field(
        gt=0.0, description="Bytes a second at which weights are read while tokens are decoded."
    )
    by_bits: tuple[BitsBandwidth, ...] = Field(
        (), description="Where weights of some bits are read at another speed: their kernels compute more."
    )
    fixed_decode_ms: float = Field(
        0.0, ge=0.0, description="Milliseconds of a decoded token beside reading weights and cache."
    )
    costs: tuple[FormatCost, ...] = Field(
        (),
        description="Times of products in each format, before by_bits; `edgeicl probe` measures them.",
    )
    fixed_prompt_ms: float = Field(
        0.0, ge=0.0, description="Milliseconds of a prompt, however short, beside its products."
    )
    fixed_layers: int | None = Field(
        None,
        ge=1,
        description="Layers of the graph whose nodes took these fixed times, which go with their number; null: "
        "they are those of any graph.",
    )
    activation_ps_per_number: float = Field(
        0.0,
        ge=0.0,
        description="Picoseconds of each number that a product takes or gives while a prompt is read.",
    )
    attention_ps_per_product: float = Field(
        0.0,
        ge=0.0,
        description="Picoseconds of each product of two numbers between tokens of a prompt, in attention.",
    )
    whole_attention_ps_per_product: float | None = Field(
        None,
        ge=0.0,
        description="The same where all scores of a layer are computed at once; null: unknown. Where it is "
        "less by a tenth, artifacts whose prompts are to be fast do so.",
    )
    integer_attention_ps_per_product: float | None = Field(
        None,
        ge=0.0,
        description="The same where attention reads keys and values as 8-bit integers; null: unknown.",
    )
    cache_rounding_ps_per_number: float | None = Field(
        None,
        ge=0.0,
        description="Picoseconds of each key or value of a prompt that is rounded to 8 bits after attention; "
        "null: unknown.",
    )
    disturbance: float | None = Field(
        None,
        ge=1.0,
        description="Median of a probe's times by their least; above 1.5 the computer was busy; null: unknown.",
    )
    measurements: int = Field(ge=1, description="How many measurements stand behind the figure.")
    source: str = Field(description="Where the measurements come from.")

    @property
    def disturbed(self) -> bool:
        """Whether the computer was busy while it was measured."""
        return self.disturbance is not None and self.disturbance > _BUSY

    @property
    def whole_attention_is_faster(self) -> bool:
        """Whether that was measured, and by more than measurements differ."""
        whole = self.whole_attention_ps_per_product
        return whole is not None and 0.0 < whole <= _CLEARLY_FASTER * self.attention_ps_per_product

    def fixed_decode_ms_of(self, layers: int) -> float:
        """Of a graph of so many layers."""
        return self._of_layers(self.fixed_decode_ms, layers)

    def fixed_prompt_ms_of(self, layers: int) -> float:
        """Of a graph of so many layers."""
        return self._of_layers(self.fixed_prompt_ms, layers)

    def _of_layers(self, fixed_ms: float, layers: int) -> float:
        return fixed_ms if self.fixed_layers is None else fixed_ms * layers / self.fixed_layers

    @property
    def knows_integer_caches(self) -> bool:
        """Whether the time of prompts beside a cache of integers can be predicted."""
        return None not in (self.integer_attention_ps_per_product, self.cache_rounding_ps_per_number)

    def attention_ps(self, attention: PromptAttention) -> float:
        """Picoseconds of a product between tokens of a prompt, of keys and values in floating point."""
        whole = self.whole_attention_ps_per_product
        return self.attention_ps_per_product if attention == "tiled" or whole is None else whole

    def cost(self, format_: Format) -> FormatCost | None:
        """Of products in the format, if it was measured; weights of 16 bits are held in 32."""
        held = Format(bits=32) if format_.bits == 16 else format_
        return next((cost for cost in self.costs if cost.format == held), None)

    @field_validator("costs")
    @classmethod
    def _each_format_once(cls, costs: tuple[FormatCost, ...]) -> tuple[FormatCost, ...]:
        formats = [str(cost.format) for cost in costs]
        if len(set(formats)) != len(formats):
            raise ValueError(f"formats {', '.join(formats)}; expected each once")
        return costs

    @field_validator("by_bits")
    @classmethod
    def _each_once(cls, by_bits: tuple[BitsBandwidth, ...]) -> tuple[BitsBandwidth, ...]:
        widths = [entry.bits for entry in by_bits]
        if len(set(widths)) != len(widths):
            raise ValueError(f"bits {', '.join(map(str, widths))}; expected each once")
        return by_bits


class Target(Spec):
    """A device or a class of devices. Names no model."""

    version: Literal[1] = Field(description="Version of the target format.")
    name: Name = Field(description="Names the device: letters, digits, `.`, `_` and `-`.")
    description: str = Field(description="The device in a few words, for people.")
    provider: Literal["cpu", "cuda"] = Field("cpu", description="What runs the graph there.")
    threads: int = Field(ge=1, description="Threads to run on: the big cores of a phone.")
    instruction_features: tuple[str, ...] = Field(
        (), description="What its cores can do beyond the least, such as neon, dotprod, i8mm or avx2."
    )
    context_tokens: int = Field(ge=1, description="Context length whose key/value cache is budgeted.")
    prompt_tokens: int | None = Field(
        None, ge=1, description="Prompt whose time is predicted; null: as long as the context."
    )
    runtime_overhead_bytes: ByteSize = Field(
        description="Resident memory of the runtime and its session, without weights and cache."
    )
    memory_bandwidth_bytes_per_second: float | None = Field(
        None,
        gt=0.0,
        description="Bytes a second of the memory by its specification, for predictions without a calibration.",
    )
    formats: tuple[Format, ...] = Field(min_length=1, description="Formats with a fast kernel here.")
    cache_bits: tuple[CacheBits, ...] = Field(
        (32,),
        min_length=1,
        description="Bits of keys and values, as attention's kernels here take them: 32 and 16 floating point, "
        "8 integers. Of several the planner takes those with which the whole plan loses least.",
    )
    activation_bits: ActivationBits = Field(
        32, description="Bits of what the layers compute: 16 where half precision is fast, as on GPUs."
    )
    prompt_format: Format | None = Field(
        None,
        description="8 bits with block_size row: layers' weights may be stored a second time, to read prompts "
        "with, where budget.first_token_ms can't be kept otherwise; null: never.",
    )
    budget: Budget
    calibration: Calibration | None = Field(
        None, description="Measured speeds of the device, for predictions; null where there are none."
    )
    sources: dict[str, str] = Field(description="Key -> where its figure comes from.")

    @model_validator(mode="after")
    def _latency_can_be_predicted(self) -> Target:
        if self.budget.decode_ms is not None and self.calibration is None:
            raise ValueError(
                f"budget.decode_ms is {self.budget.decode_ms:g} and there is no calibration to predict it by; "
                "expected calibration.bandwidth_bytes_per_second, or no decode_ms"
            )
        return self

    @model_validator(mode="after")
    def _first_token_can_be_predicted(self) -> Target:
        if self.prompt_format is not None and not self.prompt_format.by_row:
            raise ValueError(
                f"prompt_format is {self.prompt_format}; expected 8 bits with block_size row, or null"
            )
        if self.budget.first_token_ms is None:
            return self
        if self.cache_bits == (8,) and not (self.calibration and self.calibration.knows_integer_caches):
            raise ValueError(
                f"budget.first_token_ms is {self.budget.first_token_ms:g}, cache_bits 8 alone, and calibration "
                "has no integer_attention_ps_per_product and cache_rounding_ps_per_number; expected both "
                "(`edgeicl probe` measures them), or 32 in cache_bits"
            )
        read = [*self.formats, *([self.prompt_format] if self.prompt_format else [])]
        missing = [str(f) for f in read if self.calibration is None or self.calibration.cost(f) is None]
        if missing:
            raise ValueError(
                f"budget.first_token_ms is {self.budget.first_token_ms:g} and calibration.costs lacks "
                f"{', '.join(missing)}; expected the cost of every format (`edgeicl probe` measures them)"
            )
        return self

    @model_validator(mode="after")
    def _integer_products_are_exact(self) -> Target:
        features = self.instruction_features
        if (
            any(f and f.by_row for f in (*self.formats, self.prompt_format))
            and "avx2" in features
            and not {*features} & {*VNNI}
        ):
            raise ValueError(
                "int8/row is asked for, whose sums of products saturate with avx2 alone; expected "
                f"one of {', '.join(VNNI)} in instruction_features, or no block_size: row"
            )
        return self

    @model_validator(mode="after")
    def _one_floating_point_type(self) -> Target:
        bits = self.activation_bits
        others = [width for width in self.cache_bits if width not in (8, bits)]
        if others:
            found = ", ".join(map(str, others))
            raise ValueError(f"cache_bits {found} beside activation_bits {bits}; expected {bits}, 8, or both")
        if bits == 16 and any(format_.bits == 32 for format_ in self.formats):
            raise ValueError("formats of 32 bits beside activation_bits 16; expected 16 bits at most")
        if self.prompt_format is not None and bits == 16:
            raise ValueError("prompt_format with activation_bits 16; expected 32, or no prompt_format")
        if bits == 16 and any(format_.by_row for format_ in self.formats):
            raise ValueError("formats has int8/row beside activation_bits 16; expected activation_bits 32")
        return self

    @field_validator("cache_bits")
    @classmethod
    def _caches_distinct(cls, cache_bits: tuple[CacheBits, ...]) -> tuple[CacheBits, ...]:
        if len(set(cache_bits)) != len(cache_bits):
            raise ValueError(f"cache_bits {', '.join(map(str, cache_bits))}; expected each once")
        return cache_bits

    @field_validator("formats")
    @classmethod
    def _formats_distinct(cls, formats: tuple[Format, ...]) -> tuple[Format, ...]:
        if len(set(formats)) != len(formats):
            raise ValueError("formats must be distinct")
        return formats
