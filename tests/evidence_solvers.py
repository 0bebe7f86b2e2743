"""Solvers side by side at the same formats, and what the choices inside them are worth, as KL to fp32.

    python -m tests.evidence_solvers [MODEL ...]

prints the tables of docs/results/solvers.md, for the built-in models unless others are named. Weights are
rounded for 32 training prompts of the quickstart's task, on which importance is measured too; KL is measured
on 256 prompts of its test split, at every token.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from math import exp, log
from pathlib import Path
from time import process_time

import torch

from edgeicl.models.model_folder import model_folder
from edgeicl.numerics.size import group_bytes
from edgeicl.quantize import calibrated_rounding
from edgeicl.quantize.allocation import Limit, SizeTable, allocate, plan_bytes, smallest_bytes
from edgeicl.quantize.calibration import calibration_sequences
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.plan_loss import PlanLoss
from edgeicl.quantize.refinement import refine
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.solver import SolverName, solve
from edgeicl.quantize.stored_weights import read_again
from edgeicl.quantize.student_weights import StudentWeights, read_weights
from edgeicl.report.tables import markdown
from edgeicl.specs.catalog import load_recipe
from edgeicl.specs.quant_plan import Format

MODELS = ("builtin:nli-student", "builtin:nli-teacher")
SOLVERS: tuple[SolverName, ...] = ("rtn", "hqq", "gptq")
# The levels of mixed plans, and the uniform formats.
LEVELS = (Format(bits=2, block_size=64), Format(bits=4, block_size=64), Format(bits=8, block_size=64))
UNIFORM = (
    Format(bits=4, block_size=32),
    Format(bits=4, block_size=32, symmetric=False),
    Format(bits=4, block_size=64),
    Format(bits=4, block_size=64, symmetric=False),
    Format(bits=2, block_size=64),
    Format(bits=2, block_size=64, symmetric=False),
)
# As much dampening as leaves the inputs no say: round to nearest.
DAMPENINGS = {"0.01": 0.01, "0.1": 0.1, "0.3": 0.3, "1": 1.0, "to nearest": 1e9}
REFINED_SHARES = (0.1, 0.2, 0.3, 0.4, 0.6, 0.8)
ROUNDS = 2

Plan = Mapping[str, Format]


class Model:
    """A student, its calibration prompts and the prompts that no solver has seen."""

    def __init__(self, name: str) -> None:
        self.name = name
        folder = model_folder(name)
        task = load_recipe("quickstart").task
        self.weights: StudentWeights = read_weights(folder)

        def prompts(source: str, count: int) -> list[list[int]]:
            read = task.model_copy(update={"train": getattr(task, source)})
            return calibration_sequences(
                read, folder, examples=count, seed=0, base_folder=Path(), behind_prefix=False
            )

        self.calibration = CalibratedDecoder(self.weights, prompts("train", 32))
        self._unseen = Sensitivity(
            CalibratedDecoder(self.weights, prompts("in_domain", 256)), read_positions_per_sequence=10_000
        )
        self.sensitivity = Sensitivity(self.calibration)
        self._tables: dict[SolverName, dict[str, dict[Format, float]]] = {}

    @cached_property
    def sizes(self) -> SizeTable:
        """Bytes of each group in each level."""
        return {g.name: {f: group_bytes(*g.shape, f) for f in LEVELS} for g in self.weights.groups}

    def uniform(self, format_: Format) -> dict[str, Format]:
        return {group.name: format_ for group in self.weights.groups}

    def losses(self, solver: SolverName) -> dict[str, dict[Format, float]]:
        """Measured sensitivity of each group in each level."""
        if solver not in self._tables:
            table: dict[str, dict[Format, float]] = {}
            for format_ in LEVELS:
                found = self.sensitivity.losses(self.weights.groups, self.weights, format_, solver=solver)
                for group, loss in found.items():
                    table.setdefault(group, {})[format_] = loss
            self._tables[solver] = table
        return self._tables[solver]

    def limit(self, share: float) -> Limit:
        """The bytes of all-2-bit, and a share of the way to all-8-bit."""
        least, most = (plan_bytes(self.uniform(f), self.sizes) for f in (LEVELS[0], LEVELS[-1]))
        return Limit(self.sizes, round(least + share * (most - least)))

    def kl(self, solver: SolverName, plan: Plan) -> float:
        """KL to fp32 on the unseen prompts, nats."""
        stored = solve(solver, self.weights, plan, self.calibration)
        return self._unseen.loss({group: torch.from_numpy(read_again(m)) for group, m in stored.items()})


def solvers_table(models: Sequence[Model]) -> str:
    """KL of every solver at equal formats; mixed plans are allocated by the solver's own sensitivity."""
    rows = []
    for model in models:
        int4 = Limit(model.sizes, plan_bytes(model.uniform(LEVELS[1]), model.sizes))
        between = Limit(model.sizes, (int4.limit_bytes + smallest_bytes(model.sizes)) // 2)
        cases: list[tuple[str, Format | Limit]] = [(f"uniform {f}", f) for f in UNIFORM]
        cases += [
            ("2, 4 and 8 bits, bytes of int4/block64", int4),
            ("2, 4 and 8 bits, midway to int2", between),
        ]
        for label, case in cases:
            found = []
            for solver in SOLVERS:
                if isinstance(case, Limit):
                    plan = allocate(model.losses(solver), [case])
                else:
                    plan = model.uniform(case)
                found.append(model.kl(solver, plan))
            ratios = [f"{found[0] / other:.2f}" for other in found[1:]]
            rows.append((model.name, label, *(f"{kl:.3g}" for kl in found), *ratios))
    return markdown(("model", "formats", *SOLVERS, "rtn / hqq", "rtn / gptq"), rows)


def embedding_table(models: Sequence[Model]) -> str:
    """Geometric mean of the KL of gptq over uniform formats, by how the tied embedding is dampened."""
    kept = calibrated_rounding.EMBEDDING_DAMPENING
    rows = []
    for model in models:
        for bits in (2, 4, 8):
            formats = [Format(bits=bits, block_size=64, symmetric=symmetric) for symmetric in (True, False)]
            formats += [Format(bits=bits, block_size=32, symmetric=f.symmetric) for f in formats]
            found = []
            for dampening in DAMPENINGS.values():
                calibrated_rounding.EMBEDDING_DAMPENING = dampening
                found.append(_mean(model.kl("gptq", model.uniform(f)) for f in formats))
            rows.append((model.name, f"{bits} bits", *(f"{kl:.3g}" for kl in found)))
    calibrated_rounding.EMBEDDING_DAMPENING = kept
    return markdown(("model", "uniform", *DAMPENINGS), rows)


def importance_table(models: Sequence[Model]) -> str:
    """KL of gptq plans allocated by sensitivity measured with rounding to nearest, and with gptq."""
    rows = []
    for model in models:
        for share in REFINED_SHARES:
            plans = [allocate(model.losses(solver), [model.limit(share)]) for solver in ("rtn", "gptq")]
            found = [model.kl("gptq", plan) for plan in plans]
            rows.append((model.name, f"{share:.0%}", *(f"{kl:.3g}" for kl in found)))
    return markdown(("model", "budget", "measured with rtn", "measured with gptq"), rows)


def refinement_table(models: Sequence[Model]) -> str:
    """What up to two rounds of refinement change: on the calibration prompts, on unseen ones, in seconds."""
    rows = []
    for model in models:
        for solver in ("rtn", "gptq"):
            for share in REFINED_SHARES:
                limits = [model.limit(share)]
                start = allocate(model.losses(solver), limits)
                measure = PlanLoss(solver, model.weights, model.calibration, model.sensitivity)
                began = process_time()
                found = refine(start, model.sizes, limits, measure=measure, near=measure.near, rounds=ROUNDS)
                taken = process_time() - began
                unseen = [model.kl(solver, plan) for plan in (start, found.plan)]
                numbers = (found.losses[0], found.losses[-1], *unseen)
                rows.append(
                    (model.name, solver, f"{share:.0%}", *(f"{kl:.3g}" for kl in numbers), f"{taken:.1f}")
                )
    return markdown(
        ("model", "solver", "budget", "calibration, before", "after", "unseen, before", "after", "CPU s"), rows
    )


def _mean(values: Iterable[float]) -> float:
    """Geometric mean."""
    logs = [log(value) for value in values]
    return exp(sum(logs) / len(logs))


if __name__ == "__main__":
    compared = [Model(name) for name in sys.argv[1:] or MODELS]
    for table in (solvers_table, embedding_table, importance_table, refinement_table):
        sys.stdout.write(f"{table.__doc__}\n\n{table(compared)}\n\n")
        sys.stdout.flush()
