"""What a whole plan really loses, measured: all its groups stored at once."""

from __future__ import annotations

from collections.abc import Mapping

from edgeicl.models.anatomy import WeightGroup
from edgeicl.quantize.decoder import Cache, CalibratedDecoder
from edgeicl.quantize.made_on_use import MadeOnUse
from edgeicl.quantize.rounded_inputs import Matrix
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.solver import SolverName, alone, solve
from edgeicl.quantize.stored_weights import read_again, stored_values
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.quant_plan import Format


class PlanLoss:
    """KL(fp32 || stored) in nats, mean over the read positions of the calibration sequences.

    No plan is measured twice, and groups whose format is the same as in the plan measured before are not
    rounded anew, unless the solver rounds them for what comes out of the others. Of a student whose weights are
    streamed nothing is kept: groups are rounded when the computation comes to them. Attention reads keys and
    values out of `cache`; in fp32 unless given.
    """

    def __init__(
        self,
        solver: SolverName,
        weights: StudentWeights,
        decoder: CalibratedDecoder,
        sensitivity: Sensitivity,
        cache: Cache | None = None,
    ) -> None:
        self._solver = solver
        self._weights = weights
        self._decoder = decoder
        self._sensitivity = sensitivity
        self._cache = cache
        self._plan: dict[str, Format] = {}
        self._values: Mapping[str, Matrix] = {}
        self._measured: dict[frozenset[tuple[str, Format]], float] = {}

    def __call__(self, plan: Mapping[str, Format]) -> float:
        """The loss of the plan, a format for every group."""
        key = frozenset(plan.items())
        if key not in self._measured:
            self._store(plan)
            self._measured[key] = self._sensitivity.loss(self._values, self._cache)
        return self._measured[key]

    def near(self, plan: Mapping[str, Format], changed: Mapping[str, Format]) -> float:
        """About the loss of `changed`: its groups that have another format in `plan` are rounded alone.

        That is exact but for gptq, which would round every later group anew: a hundred times the work.
        """
        if self._solver != "gptq":
            return self(changed)
        self._store(plan)
        rounded = {
            group.name: self._alone(group, changed[group.name])
            for group in self._weights.groups
            if changed[group.name] != plan[group.name]
        }
        return self._sensitivity.loss({**self._values, **rounded}, self._cache)

    def reading_prompts(self, plan: Mapping[str, Format], copy: Format) -> float:
        """The loss where prompts are read with the layers in the format `copy`, rounded to nearest."""
        self._store(plan)
        layers = {
            group.name: self._decoder.matrix_of(
                group.name, stored_values(self._weights.matrices[group.name], copy), copy
            )
            for group in self._weights.groups
            if group.layer is not None
        }
        return self._sensitivity.loss({**self._values, **layers}, self._cache)

    def _store(self, plan: Mapping[str, Format]) -> None:
        if self._plan == plan:
            return
        if self._solver == "gptq":
            stored = solve(self._solver, self._weights, plan, self._decoder)
            self._values = {
                group: self._decoder.matrix_of(group, read_again(matrix), plan[group])
                for group, matrix in stored.items()
            }
        elif self._weights.streamed:
            groups, formats = {group.name: group for group in self._weights.groups}, dict(plan)
            self._values = MadeOnUse(groups, lambda name: self._alone(groups[name], formats[name]))
        else:
            kept = {name: values for name, values in self._values.items() if self._plan[name] == plan[name]}
            self._values = {
                group.name: kept[group.name] if group.name in kept else self._alone(group, plan[group.name])
                for group in self._weights.groups
            }
        self._plan = dict(plan)

    def _alone(self, group: WeightGroup, format_: Format) -> Matrix:
        stored = alone(self._solver, self._weights, group, format_, self._decoder, self._sensitivity.states)
        return self._decoder.matrix_of(group.name, read_again(stored), format_)
