"""Block influence: how far a decoder block turns its input.

    BI = 1 - mean over tokens of cos(input, output)

ShortGPT (arXiv 2403.03853, section 3); the layer input modification of arXiv 2406.17415, -cos, has the same
order. It is in 0..2, and above 1 only for a block that turns most states round: 1 is the highest importance.
"""

from __future__ import annotations

from itertools import pairwise

import torch

from edgeicl.quantize.decoder import CalibratedDecoder


def block_influences(decoder: CalibratedDecoder) -> tuple[float, ...]:
    """BI of every decoder block over all calibration tokens, at most 1."""
    states = decoder.layer_inputs()
    return tuple(
        min(1.0, 1.0 - float(torch.cosine_similarity(below.double(), above.double(), dim=-1).mean()))
        for below, above in pairwise(states)
    )
