"""Reads what the quantize stage wrote, one tensor at a time: a model never has to fit in memory twice."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from edgeicl.errors import DataError
from edgeicl.models.anatomy import cache_scale_names, input_step_name, prompt_tensors
from edgeicl.numerics.affine import QuantizedMatrix, dequantize
from edgeicl.specs.quant_plan import BY_ROW, Format, QuantPlan

Floats = npt.NDArray[np.float32]


class QuantizedWeights:
    """The weights of a model after quantization, with the plan that says how each group is stored."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "weights.safetensors"
        self.plan = QuantPlan.model_validate_json((folder / "plan.json").read_text())
        self._formats: Mapping[str, Format] = self.plan.formats()
        with self._opened() as file:
            self._shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118

    def format(self, group: str) -> Format:
        """The group's format in the plan."""
        try:
            return self._formats[group]
        except KeyError:
            raise DataError(
                f"the quant plan has no group {group!r}; it has {', '.join(sorted(self._formats))}",
                next_step="make the plan for this model",
            ) from None

    @property
    def prompt_format(self) -> Format:
        """Of the layers' weights as they are stored once more for prompts; only where the plan has that."""
        assert self.plan.prompt_format is not None
        return self.plan.prompt_format

    def has(self, name: str) -> bool:
        """Whether a tensor of this name is stored."""
        return name in self._shapes

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a stored tensor, without reading it."""
        self._require(name)
        return self._shapes[name]

    def tensor(self, name: str) -> npt.NDArray[Any]:
        """A stored tensor as it is."""
        self._require(name)
        with self._opened() as file:
            values: npt.NDArray[Any] = file.get_tensor(name)
            return values

    def matrix(self, group: str) -> QuantizedMatrix:
        """Codes, scales and zero points of a group of 2, 4 or 8 bits."""
        format_ = self.format(group)
        if not format_.quantized:
            raise DataError(f"group {group} is {format_}; it has no codes")
        return self._matrix(group, format_)

    def _matrix(self, tensors: str, format_: Format) -> QuantizedMatrix:
        codes = self.tensor(f"{tensors}.codes")
        return QuantizedMatrix(
            codes=codes,
            scales=self.tensor(f"{tensors}.scales").astype(np.float32, copy=False),
            zero_points=None if format_.symmetric else self.tensor(f"{tensors}.zero_points"),
            bits=format_.bits,
            block_size=format_.block_of(codes.shape[1]),
        )

    def dense(self, group: str) -> Floats:
        """The group's weights [N, K] as the artifact is meant to compute with them."""
        if self.format(group).quantized:
            return dequantize(self.matrix(group))
        return self.tensor(f"{group}.weight").astype(np.float32)

    def dense_for_prompts(self, group: str) -> Floats:
        """The same for what a prompt of several tokens is read with."""
        if self.plan.prompt_format is None or not self.has(f"{prompt_tensors(group)}.codes"):
            return self.dense(group)
        return dequantize(self.integer_matrix(prompt_tensors(group)))

    def integer_matrix(self, tensors: str) -> QuantizedMatrix:
        """What an integer product reads, by what the names of its tensors begin with."""
        return self._matrix(tensors, BY_ROW)

    def input_step(self, group: str) -> float | None:
        """That an integer product rounds all tokens' inputs of the group in; None: each token has its own."""
        name = input_step_name(group)
        return float(self.tensor(name)[0]) if self.has(name) else None

    def cache_scales(self) -> list[tuple[Floats, Floats]] | None:
        """Of each layer's keys and values, [heads, head size] each; None where the cache is floating point."""
        if self.plan.cache_bits != 8:
            return None
        found: list[tuple[Floats, Floats]] = []
        while self.has(cache_scale_names(len(found))[0]):
            keys, values = map(self.tensor, cache_scale_names(len(found)))
            found.append((keys, values))
        return found

    def _opened(self) -> Any:
        """The file anew for each tensor: what was read of a mapped file stays in memory while it is open."""
        return safe_open(str(self._path), framework="np")

    def _require(self, name: str) -> None:
        if name not in self._shapes:
            raise DataError(f"{self._path} has no tensor {name!r}", next_step="run the quantize stage again")
