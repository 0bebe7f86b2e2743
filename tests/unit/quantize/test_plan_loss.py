"""Losses of whole plans: by rounding everything anew, and near another plan."""

from __future__ import annotations

import pytest
import torch

from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.plan_loss import PlanLoss
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.solver import SolverName, solve
from edgeicl.quantize.stored_weights import read_again
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.quant_plan import Format
from tests.unit.quantize.tiny_student import SEQUENCES

INT2, INT4, FP16 = Format(bits=2, block_size=16), Format(bits=4, block_size=32), Format(bits=16)


@pytest.mark.parametrize("solver", ["rtn", "hqq", "gptq"])
def test_plans_one_after_the_other_lose_what_each_does_alone(
    weights: StudentWeights, solver: SolverName
) -> None:
    """Only changed groups are rounded anew: nothing of an earlier plan may be left."""
    decoder = CalibratedDecoder(weights, SEQUENCES)
    sensitivity = Sensitivity(decoder)
    measure = PlanLoss(solver, weights, decoder, sensitivity)
    names = [group.name for group in weights.groups]
    plans = [
        dict.fromkeys(names, INT4),
        dict.fromkeys(names, INT4) | {"layers.0.mlp.up": INT2},
        dict.fromkeys(names, INT4) | {"layers.1.mlp.up": FP16, "embedding": INT2},
        dict.fromkeys(names, INT4),
    ]
    found = [measure(plan) for plan in plans]
    for plan, loss in zip(plans, found, strict=True):
        stored = solve(solver, weights, plan, decoder)
        expected = sensitivity.loss({name: torch.from_numpy(read_again(m)) for name, m in stored.items()})
        assert loss == pytest.approx(expected, rel=1e-6)
    assert found[0] == found[3]
    assert len({round(loss, 9) for loss in found}) == 3


def test_near_is_exact_where_groups_are_rounded_alone(weights: StudentWeights) -> None:
    decoder = CalibratedDecoder(weights, SEQUENCES)
    plan = {group.name: INT4 for group in weights.groups}
    changed = plan | {"layers.0.mlp.down": INT2}
    measure = PlanLoss("rtn", weights, decoder, Sensitivity(decoder))
    assert measure.near(plan, changed) == measure(changed)


def test_near_tells_with_gptq_which_change_costs_more(weights: StudentWeights) -> None:
    """An estimate: the groups after a changed one stay as they were."""
    decoder = CalibratedDecoder(weights, SEQUENCES)
    sensitivity = Sensitivity(decoder)
    measure = PlanLoss("gptq", weights, decoder, sensitivity)
    plan = {group.name: INT4 for group in weights.groups}
    names = ("layers.0.mlp.down", "layers.1.mlp.down")
    near = [measure.near(plan, plan | {name: INT2}) for name in names]
    exact = [measure(plan | {name: INT2}) for name in names]
    assert (near[0] > near[1]) == (exact[0] > exact[1])
    assert near == pytest.approx(exact, rel=0.5)
    assert measure.near(plan, plan) == measure(plan)
