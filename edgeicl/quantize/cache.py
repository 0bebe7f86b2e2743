"""The key/value cache in fewer bits: scales from the calibration sequences, and what attention then reads.

Notation: N layers, A key/value heads, D head size, T rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from torch import Tensor

from edgeicl.models.anatomy import cache_scale_names
from edgeicl.numerics.cache_rounding import HIGHEST_CODE, LOWEST_CODE, channel_scales
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.measured_importance import Student
from edgeicl.specs.quant_plan import CacheBits
from edgeicl.store import Store, digest_of

Scales = NDArray[np.float32]

CACHE_SCALES = "cache_scales"
"""The stage that measures them."""
_FILE = "scales.safetensors"
# Of the largest number seen in a channel: other texts go beyond, and to clip costs more than coarser steps
# (docs/results/cache.md).
HEADROOM = 1.25


@dataclass(frozen=True, eq=False)
class RoundedCache:
    """A `decoder.Cache` of `bits`; integers have `scales` [N, 2, A, D], of keys and then of values."""

    bits: CacheBits
    scales: Scales | None = None

    def __call__(self, layer: int, rows: Tensor) -> Tensor:
        """What attention finds of a layer's keys and values [T, 2 * A * D]."""
        if self.scales is None:
            return rows.half().float() if self.bits == 16 else rows
        scales = torch.from_numpy(self.scales[layer].reshape(-1))
        return (rows / scales).round().clamp(LOWEST_CODE, HIGHEST_CODE) * scales

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The scales as `weights.safetensors` holds them: [A, D] for each layer's keys and its values."""
        if self.scales is None:
            return {}
        return {
            name: np.ascontiguousarray(scales)
            for layer, both in enumerate(self.scales)
            for name, scales in zip(cache_scale_names(layer), both, strict=True)
        }


def cache_scales_of(tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Those of `weights.safetensors` that `RoundedCache.tensors` gave."""
    kinds = tuple(name.removeprefix("layers.0") for name in cache_scale_names(0))
    return {name: values for name, values in tensors.items() if name.endswith(kinds)}


def rounded_cache(student: Student, bits: CacheBits, *, store: Store) -> RoundedCache:
    """The student's cache in `bits`; its scales are measured once for all targets."""
    if bits != 8:
        return RoundedCache(bits)

    def build(folder: Path) -> None:
        if store.workers.is_writer:
            save_file({"scales": measured_scales(student.decoder)}, folder / _FILE)

    output = store.run(CACHE_SCALES, _inputs(student), build)
    return RoundedCache(bits, load_file(output.path / _FILE)["scales"])


def measured_scales(decoder: CalibratedDecoder) -> Scales:
    """[N, 2, A, D] from the largest key and value of every channel at the calibration tokens."""
    largest: list[Tensor] = []

    def seen(layer: int, rows: Tensor) -> Tensor:
        largest.append(rows.abs().amax(dim=0))
        return rows

    hidden = decoder.embed()
    for index in range(decoder.layers):
        hidden = decoder.layer(index, hidden, cache=seen)
    shape = (decoder.layers, 2, decoder.kv_heads, decoder.head_size)
    return channel_scales((HEADROOM * torch.stack(largest)).numpy().reshape(shape))


def _inputs(student: Student) -> dict[str, Any]:
    return {
        "student": student.digest,
        "calibration": digest_of([list(sequence) for sequence in student.sequences]),
        "prefix": student.prefix_digest,
        "headroom": HEADROOM,
    }
