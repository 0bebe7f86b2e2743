"""Which inputs of integer products are rounded in one step for all tokens, and in which.

One step for all (static quantization: SmoothQuant, arXiv 2211.10438, section 3) spares the artifact the search
for each token's largest input and the scaling of what comes out, a sixth of a prompt's time. It is as coarse as
the largest token wants it: behind a norm, where tokens are alike, that costs little, and behind an activation
function, where one token is ten times another, most of their digits. So it is taken where it is hardly coarser:
docs/decisions/0014-integer-products.md.
"""

from __future__ import annotations

from torch import Tensor

from edgeicl.quantize.rounded_inputs import LARGEST_CODE

COARSEST = 3.0
"""One step for all over the steps of the tokens, as the root of their mean square: of the rounding's error."""
# Inputs of other texts beyond the largest seen are cut off there.
HEADROOM = 1.1


class InputSteps:
    """A `decoder.Listener`: sees inputs [T, K] of weight groups at the calibration tokens, each group once."""

    def __init__(self) -> None:
        self._largest: dict[str, Tensor] = {}

    def __call__(self, group: str, inputs: Tensor) -> None:
        self._largest[group] = inputs.abs().amax(dim=-1)  # of each token: [T]

    def found(self) -> dict[str, float]:
        """Group -> the step of all tokens' inputs; without the groups where it would be too coarse."""
        steps: dict[str, float] = {}
        for group, largest in self._largest.items():
            of_all = HEADROOM * float(largest.max())
            if 0.0 < of_all <= COARSEST * float(largest.square().mean().sqrt()):
                steps[group] = of_all / LARGEST_CODE
        return steps
