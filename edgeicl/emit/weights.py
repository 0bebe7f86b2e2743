"""Reads what the quantize stage wrote, one tensor at a time: a model never has to fit in memory twice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import safe_open

from edgeicl.errors import DataError
from edgeicl.numerics.affine import QuantizedMatrix, dequantize
from edgeicl.specs.quant_plan import Format, QuantPlan

Floats = npt.NDArray[np.float32]


def cache_scale_names(layer: int) -> tuple[str, str]:
    """Tensors [heads, head size] with the scales of a layer's keys and values in an 8-bit cache."""
    return f"layers.{layer}.attention.key_scales", f"layers.{layer}.attention.value_scales"


class QuantizedWeights:
    """The weights of a model after quantization, with the plan that says how each group is stored."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "weights.safetensors"
        self.plan = QuantPlan.model_validate_json((folder / "plan.json").read_text())
        self._formats: Mapping[str, Format] = self.plan.formats()
        self._file: Any = safe_open(str(self._path), framework="np")
        keys: Iterable[str] = self._file.keys()  # type: ignore[no-untyped-call]  # its library has no types
        self._names = frozenset(keys)

    def format(self, group: str) -> Format:
        """The group's format in the plan."""
        try:
            return self._formats[group]
        except KeyError:
            raise DataError(
                f"the quant plan has no group {group!r}; it has {', '.join(sorted(self._formats))}",
                next_step="make the plan for this model",
            ) from None

    def has(self, name: str) -> bool:
        """Whether a tensor of this name is stored."""
        return name in self._names

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a stored tensor, without reading it."""
        self._require(name)
        return tuple(self._file.get_slice(name).get_shape())

    def tensor(self, name: str) -> npt.NDArray[Any]:
        """A stored tensor as it is."""
        self._require(name)
        values: npt.NDArray[Any] = self._file.get_tensor(name)
        return values

    def matrix(self, group: str) -> QuantizedMatrix:
        """Codes, scales and zero points of a group of 2, 4 or 8 bits."""
        format_ = self.format(group)
        if format_.block_size is None:
            raise DataError(f"group {group} is {format_}; it has no codes")
        return QuantizedMatrix(
            codes=self.tensor(f"{group}.codes"),
            scales=self.tensor(f"{group}.scales").astype(np.float32, copy=False),
            zero_points=None if format_.symmetric else self.tensor(f"{group}.zero_points"),
            bits=format_.bits,
            block_size=format_.block_size,
        )

    def dense(self, group: str) -> Floats:
        """The group's weights [N, K] as the artifact is meant to compute with them."""
        if self.format(group).quantized:
            return dequantize(self.matrix(group))
        return self.tensor(f"{group}.weight").astype(np.float32)

    def cache_scales(self) -> list[tuple[Floats, Floats]] | None:
        """Of each layer's keys and values, [heads, head size] each; None where the cache is floating point."""
        if self.plan.cache_bits != 8:
            return None
        found: list[tuple[Floats, Floats]] = []
        while self.has(cache_scale_names(len(found))[0]):
            keys, values = map(self.tensor, cache_scale_names(len(found)))
            found.append((keys, values))
        return found

    def _require(self, name: str) -> None:
        if name not in self._names:
            raise DataError(f"{self._path} has no tensor {name!r}", next_step="run the quantize stage again")
