"""Solvers: how the weights of a plan become codes.

- rtn: to the nearest level, each block's scale by least squared error (`numerics.affine`).
- hqq: half-quadratic quantization (`numerics.hqq`).
"""

from __future__ import annotations

from collections.abc import Mapping

from edgeicl.numerics.affine import round_to_nearest
from edgeicl.numerics.hqq import half_quadratic
from edgeicl.progress import track
from edgeicl.quantize.stored_weights import Quantizer, Stored, stored_matrix
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.quant_plan import Format

QUANTIZERS: dict[str, Quantizer] = {"rtn": round_to_nearest, "hqq": half_quadratic}


def solved(weights: StudentWeights, plan: Mapping[str, Format], quantizer: Quantizer) -> dict[str, Stored]:
    """Every group of the plan as it is stored, each rounded for itself."""
    found = {}
    with track("rounding weights", len(plan)) as advance:
        for group, format_ in plan.items():
            found[group] = stored_matrix(weights.matrices[group], format_, quantizer)
            advance(1)
    return found
