"""The quant plan: weight group -> format. Data that can be read, compared, edited and fed back."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from edgeicl.specs.spec import Spec

BLOCK_SIZES = (16, 32, 64, 128, 256)
CacheBits = Literal[8, 16, 32]
"""Of a key or a value: 16 and 32 are floating point, 8 integers with a scale for each channel of a head."""
ActivationBits = Literal[16, 32]
PromptAttention = Literal["tiled", "whole"]
"""How attention to a prompt goes through its scores: a tile after the other, or all of a layer at once."""


class Format(Spec):
    """How the weights of a group are stored.

    2, 4 and 8 bits are integers with one fp32 scale per `block_size` weights of a row, as MatMulNBits reads
    them; 16 and 32 bits are floating point and have no blocks. 8 bits with one scale for the whole row are for
    integer matrix products, which round their inputs to 8 bits too: in one step for all tokens where these are
    alike, each token by its largest elsewhere.
    """

    bits: Literal[2, 4, 8, 16, 32] = Field(
        description="Of one weight: 2, 4 and 8 are integers, 16 and 32 floating point."
    )
    block_size: Literal[16, 32, 64, 128, 256, "row"] | None = Field(
        None,
        description="Weights of a row that share a scale; row: all of them, in symmetric 8 bits, for integer "
        "products; null for floating point.",
    )
    symmetric: bool = Field(True, description="Whether zero is the middle code; else blocks have zero points.")

    @model_validator(mode="after")
    def _block_where_needed(self) -> Format:
        if self.bits <= 8 and self.block_size is None:
            raise ValueError(f"{self.bits} bits need a block_size; expected one of {BLOCK_SIZES}")
        if self.bits > 8 and (self.block_size is not None or not self.symmetric):
            raise ValueError(f"{self.bits} bits are floating point: no block_size and no symmetric: false")
        if self.by_row and (self.bits != 8 or not self.symmetric):
            raise ValueError("block_size row is of symmetric 8 bits: integer products take no others")
        return self

    @property
    def quantized(self) -> bool:
        """Whether the weights are integer codes with scales."""
        return self.bits <= 8

    @property
    def by_row(self) -> bool:
        """Whether the weights are for integer products, which round their inputs too."""
        return self.block_size == "row"

    def block_of(self, columns: int) -> int:
        """Weights that share a scale, in rows of `columns`; the whole row in floating point."""
        return self.block_size if isinstance(self.block_size, int) else columns

    def __str__(self) -> str:
        if not self.quantized:
            return f"fp{self.bits}"
        if self.by_row:
            return "int8/row"
        return f"int{self.bits}/block{self.block_size}{'' if self.symmetric else '/asymmetric'}"


BY_ROW = Format(bits=8, block_size="row")


def rounds_after_prompts(cache_bits: CacheBits, copy: Format | None, attention: PromptAttention) -> bool:
    """Whether prompts with nothing before them meet keys and values as they are, which then become integers.

    So it is where a cache of integers is beside a way of reading prompts that was chosen for its speed: a
    `copy` of the layers, or whole `attention`. Elsewhere attention reads the integers, whatever it is for.
    """
    return cache_bits == 8 and (copy is not None or attention == "whole")


class GroupPlan(Spec):
    """One weight group and what is to become of it."""

    group: str = Field(description="Name of the weight group, such as layers.0.mlp.up.")
    format: Format
    importance: float | None = Field(None, description="What the allocation went by; higher matters more.")


class QuantPlan(Spec):
    """The whole plan."""

    version: Literal[1] = Field(1, description="Version of the plan format.")
    model_digest: str = Field(description="Digest of the weights that the plan was made for.")
    importance: str = Field(description="How the importances were come by: the recipe's method.")
    groups: tuple[GroupPlan, ...] = Field(min_length=1, description="Every weight group of the model, once.")
    prompt_format: Format | None = Field(
        None,
        description="Of a second copy of the layers' weights, read while a prompt is read; null: prompts "
        "are read with the weights of `groups`.",
    )
    cache_bits: CacheBits = Field(32, description="Of a key or a value in the cache.")
    activation_bits: ActivationBits = Field(
        32, description="Of what the layers compute: floating point; with 16, scales and norms have 16 too."
    )
    prompt_attention: PromptAttention = Field(
        "tiled",
        description="How attention to a prompt goes through its scores: tiled, a few at a time, or whole, all "
        "of a layer at once, which takes more memory.",
    )
    predicted_weight_bytes: int = Field(description="Of the file of weights.")
    predicted_artifact_bytes: int = Field(description="Of every file that the budget counts; an upper bound.")
    predicted_resident_bytes: int = Field(description="Of the running process, as the budget counts it.")
    prompt_loss: float | None = Field(
        None,
        description="KL(fp32 || second copy) in nats at the calibration sequences, measured; null without one.",
    )
    predicted_first_token_ms: float | None = Field(
        None,
        description="Of reading a prompt of the target's length; null without the costs of its formats.",
    )
    predicted_decode_ms: float | None = Field(
        None,
        description="Of a token at the end of the context; null without calibration or decoding.",
    )

    @model_validator(mode="after")
    def _groups_distinct(self) -> QuantPlan:
        names = [entry.group for entry in self.groups]
        if len(set(names)) != len(names):
            raise ValueError("a group appears twice")
        if self.prompt_format is not None and not self.prompt_format.by_row:
            raise ValueError(
                f"prompt_format is {self.prompt_format}; expected 8 bits with block_size row, or null"
            )
        halves = 16 in (self.cache_bits, self.activation_bits)
        if self.prompt_format is not None and halves:
            raise ValueError(f"prompt_format with {self.numbers}; expected no fp16, or no prompt_format")
        if self.prompt_attention == "whole" and halves:
            raise ValueError(f"prompt_attention is whole with {self.numbers}; expected no fp16, or tiled")
        return self

    @property
    def rounds_after_prompts(self) -> bool:
        """See `rounds_after_prompts`."""
        return rounds_after_prompts(self.cache_bits, self.prompt_format, self.prompt_attention)

    @property
    def numbers(self) -> str:
        """Bits of what is no weight, in words."""
        kept = "8-bit integers" if self.cache_bits == 8 else f"fp{self.cache_bits}"
        return f"activations in fp{self.activation_bits}, keys and values in {kept}"

    def formats(self) -> dict[str, Format]:
        """Group name -> format."""
        return {entry.group: entry.format for entry in self.groups}
