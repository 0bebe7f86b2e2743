"""A weight group in training: stored in its format in every forward pass, with gradients all the same.

Values are `level * scale` with `level = clamp(round(weight / scale))`, as the artifact will read them.
Gradients are those of learned step size quantization (LSQ, arXiv 1902.08153, section 2.1): rounding passes them
straight through, a clamped weight gets none, and a scale gets `level - weight / scale` of each weight, or the
level where it is clamped. A weight is trained in units of its block's first scale, and a scale as the exponent
of a factor (arXiv 1903.08066 trains thresholds so): one learning rate then suits every group and every number
of bits, and a scale keeps its sign. LSQ's own scaling of gradients would change nothing under Adam.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edgeicl.numerics.affine import QuantizedMatrix, filled_blocks
from edgeicl.quantize.student_weights import Floats

_WITHIN = (
    0.49  # of a level's half width: where a weight starts that is stored on another level than the nearest
)


class FakeQuantized:
    """A matrix [N, K] in training, which starts with the codes and scales of `stored`.

    Each of `weights`, what was stored, starts within reach of its level: a solver may have moved it there from
    a nearer one.
    """

    def __init__(self, weights: Floats, stored: QuantizedMatrix, *, device: torch.device) -> None:
        self._bits, self._block = stored.bits, stored.block_size
        self._scales = torch.from_numpy(stored.scales)[..., None].to(device)  # [N, blocks, 1]
        middle = np.full(stored.scales.shape, 1 << (stored.bits - 1), np.uint8)
        zero_points = middle if stored.zero_points is None else stored.zero_points
        self._zero_points = None if stored.zero_points is None else zero_points
        self._lowest = -torch.from_numpy(zero_points).float()[..., None].to(device)
        self._columns = weights.shape[1]
        codes = filled_blocks(stored.filled_codes.astype(np.float32), self._block)
        levels = torch.from_numpy(codes).to(device) + self._lowest
        exact = torch.from_numpy(filled_blocks(weights, self._block)).to(device) / self._scales
        self.weights = torch.clamp(exact, levels - _WITHIN, levels + _WITHIN).requires_grad_()
        self.exponents = torch.zeros_like(self._scales).requires_grad_()

    def values(self) -> Tensor:
        """[N, K] as the artifact will read it."""
        return (self._levels() * self._current_scales()).flatten(1)[:, : self._columns]

    @torch.no_grad()
    def stored(self) -> QuantizedMatrix:
        """Just what `values` computed with."""
        codes = (self._levels() - self._lowest).to(torch.uint8).flatten(1)[:, : self._columns].contiguous()
        scales = self._current_scales()[..., 0]
        return QuantizedMatrix(
            codes.cpu().numpy(), scales.cpu().numpy(), self._zero_points, self._bits, self._block
        )

    def _current_scales(self) -> Tensor:
        return self._scales * torch.exp(self.exponents)

    def _levels(self) -> Tensor:
        exact = self.weights * torch.exp(-self.exponents)
        clamped = torch.clamp(exact, self._lowest, self._lowest + float((1 << self._bits) - 1))
        return clamped + (torch.round(clamped) - clamped).detach()  # exactly the rounded one: both are near
