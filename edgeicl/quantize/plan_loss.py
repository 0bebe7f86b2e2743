"""What a whole plan really loses, measured: all its groups stored at once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.solver import EACH_ALONE, SolverName, solve
from edgeicl.quantize.stored_weights import read_again, stored_values
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.quant_plan import Format


class PlanLoss:
    """KL(fp32 || stored) in nats, mean over the read positions of the calibration sequences.

    No plan is measured twice, and where a solver rounds each group for itself, only those are rounded anew
    whose format is another than in the plan measured before.
    """

    def __init__(
        self,
        solver: SolverName,
        weights: StudentWeights,
        decoder: CalibratedDecoder,
        sensitivity: Sensitivity,
    ) -> None:
        self._solver = solver
        self._weights = weights
        self._decoder = decoder
        self._sensitivity = sensitivity
        self._plan: dict[str, Format] = {}
        self._values: dict[str, Tensor] = {}
        self._measured: dict[frozenset[tuple[str, Format]], float] = {}

    def __call__(self, plan: Mapping[str, Format]) -> float:
        """The loss of the plan, a format for every group."""
        key = frozenset(plan.items())
        if key not in self._measured:
            self._store(plan)
            self._measured[key] = self._sensitivity.loss(self._values)
        return self._measured[key]

    def _store(self, plan: Mapping[str, Format]) -> None:
        matrices = self._weights.matrices
        if self._solver == "gptq":
            stored = solve(self._solver, self._weights, plan, self._decoder)
            self._values = {group: torch.from_numpy(read_again(matrix)) for group, matrix in stored.items()}
            return
        for group, format_ in plan.items():
            if self._plan.get(group) != format_:
                values = stored_values(matrices[group], format_, EACH_ALONE[self._solver])
                self._values[group] = torch.from_numpy(values)
        self._plan = dict(plan)
