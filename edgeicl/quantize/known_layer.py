"""What one layer computes with no group replaced, so that with one replaced only what moves is computed.

A product is linear: W x' = W x + W (x' - x). Behind a replaced group x' lies close to x, and W (x' - x) may be
computed coarsely: bfloat16 is then off by a thousandth of what moved, where W x' in bfloat16 would be off by a
thousandth of everything, which is more than most groups move it by.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class KnownProduct:
    """`inputs` [T, K] times a matrix [N, K] transposed, and a bias, are `outputs` [T, N].

    `coarse_matrix` has the matrix in the type that differences are computed in.
    """

    inputs: Tensor
    outputs: Tensor
    coarse_matrix: Tensor

    def moved_to(self, inputs: Tensor) -> Tensor:
        """The outputs [T, N] for other inputs [T, K], which lie close to the known ones."""
        moved = F.linear((inputs - self.inputs).to(self.coarse_matrix.dtype), self.coarse_matrix)
        return moved.float().add_(self.outputs)


@dataclass(eq=False)
class KnownLayer:
    """One layer at its input `hidden` [T, H].

    Args:
        hidden: The input.
        moved_in: The type that differences are computed in; None: products of other inputs are made anew.
        outputs: Weight group -> its product's outputs [T, N].
        products: Weight group -> its product, unless `moved_in` is None.
        attended: What the heads found.
    """

    hidden: Tensor
    moved_in: torch.dtype | None
    outputs: dict[str, Tensor] = field(default_factory=dict)
    products: dict[str, KnownProduct] = field(default_factory=dict)
    attended: Tensor | None = None

    def keep(self, group: str, inputs: Tensor, outputs: Tensor, matrix: Tensor) -> None:
        """Keeps the product of `inputs` [T, K] and the group's matrix [N, K]."""
        self.outputs[group] = outputs
        if self.moved_in is not None:
            self.products[group] = KnownProduct(inputs, outputs, matrix.to(self.moved_in))


def fast_for_differences() -> torch.dtype | None:
    """The type in which this computer multiplies so much faster than in fp32 that it makes up for the casts.

    bfloat16 with AMX: 2.2 to 3.6 times as fast, casts included. With AVX-512 for it instead, the same computer
    took 1.8 times as long as in fp32 (docs/results/opt-125m-shape.md).
    """
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)  # not in every version of torch
    return torch.bfloat16 if has_amx() else None
