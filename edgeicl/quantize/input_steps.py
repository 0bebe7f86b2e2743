"""Which inputs of integer products are rounded in one step for all tokens, and in which.

One step for all (static quantization: SmoothQuant, arXiv 2211.10438, section 3) spares the artifact the search
for each token's largest input and the scaling of what comes out. It is as coarse as the largest token wants it:
behind a norm, where tokens are alike, that costs little, and behind some activation functions, where one token
is ten times another, most of their digits. So it is taken where tokens are alike, and only there:
docs/decisions/0014-integer-products.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from torch import Tensor

from edgeicl.models.anatomy import WeightGroup
from edgeicl.quantize.rounded_inputs import LARGEST_CODE, LARGEST_RECTIFIED_CODE
from edgeicl.specs.quant_plan import Format

FARTHEST_TOKEN = 2.7
"""Tokens are alike if the largest is at most so many times the root mean square of all: as much coarser, and by
the headroom, is one step for all than each token's own. Twice as many where inputs come out of a ReLU: their
steps are half as wide."""
INPUT_HEADROOM = 1.1
"""Steps reach so much farther than the largest input that was seen: what other texts have beyond is cut off."""


class InputSteps:
    """A `decoder.Listener`: sees inputs [P + T, K] of weight groups, each group once.

    The first `prefix_tokens` rows are left out: an artifact has what became of them in its cache. `rectified`:
    the groups whose inputs come out of a ReLU.
    """

    def __init__(self, prefix_tokens: int = 0, rectified: Collection[str] = ()) -> None:
        self._prefix_tokens, self._rectified = prefix_tokens, rectified
        self._largest: dict[str, Tensor] = {}

    def __call__(self, group: str, inputs: Tensor) -> None:
        self._largest[group] = inputs[self._prefix_tokens :].abs().amax(dim=-1)  # of each token: [T]

    def found(self) -> dict[str, float]:
        """Group -> the step of all tokens' inputs; without the groups whose tokens aren't alike."""
        steps: dict[str, float] = {}
        for group, largest in self._largest.items():
            code = LARGEST_RECTIFIED_CODE if group in self._rectified else LARGEST_CODE
            step = float(largest.max()) / code
            if 0.0 < step <= FARTHEST_TOKEN * float(largest.square().mean().sqrt()) / LARGEST_CODE:
                steps[group] = INPUT_HEADROOM * step
        return steps


def integer_products(
    groups: Iterable[WeightGroup], plan: Mapping[str, Format], prompt_format: Format | None
) -> set[str]:
    """The groups of a plan that an integer product reads, for every token or for those of prompts."""
    copied = prompt_format is not None
    return {group.name for group in groups if plan[group.name].by_row or (copied and group.layer is not None)}
