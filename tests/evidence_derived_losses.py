"""How near losses that are derived from one format of each width come to those that are measured in all.

    python -m tests.evidence_derived_losses MODEL_FOLDER TEXT_FILE [--separator TEXT] [--solver rtn|gptq]

prints a table of docs/results/importance.md: derived over measured, by bits; then, at the bytes of uniform
formats, KL to fp32 on text that nothing was chosen on, of the plan that each table gives.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from edgeicl.quantize.allocation import Limit, LossTable, allocate, plan_bytes
from edgeicl.quantize.derived_losses import derived_table, measured_format, output_changes
from edgeicl.quantize.solver import SolverName
from edgeicl.report.tables import markdown
from edgeicl.specs.importance import FormatLosses, ImportanceTable
from edgeicl.specs.quant_plan import Format
from edgeicl.specs.source import TextSource
from tests.measured_checkpoint import OFFERED, Model

BUDGETS = [Format(bits=bits, block_size=block) for bits, block in ((2, 64), (4, 64), (4, 32), (8, 64))]
MOST_TOKENS = 256


def derived_losses(model: Model, measured: LossTable, solver: SolverName) -> LossTable:
    """The table of `quantize.measured_formats: one_per_width`, from what is measured anyway."""
    offered = {name: list(formats) for name, formats in model.sizes.items()}
    groups = {f: [name for name, formats in offered.items() if f in formats] for f in OFFERED}
    kept = {
        f: {name: measured[name][f] for name in names if measured_format(f, offered[name]) == f}
        for f, names in groups.items()
    }
    table = ImportanceTable(
        method="sensitivity",
        unit="nats",
        calibration_sequences=len(model.chosen_on),
        calibration_tokens=len(model.calibration.tokens),
        formats=tuple(FormatLosses(format=f, losses=losses) for f, losses in kept.items() if losses),
    )
    changes = output_changes(model.weights, model.calibration, offered, solver=solver)
    return derived_table(table, groups, changes, measure=lambda name, f: measured[name][f]).losses()


def main() -> None:
    """Measures, derives, prints Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--separator")
    parser.add_argument("--solver", choices=["rtn", "gptq"], default="rtn")
    given = parser.parse_args()
    text = {"source": f"file:{given.text.resolve()}"}
    if given.separator:
        text["separator"] = given.separator
    model = Model(given.model, TextSource.model_validate(text), most_tokens=MOST_TOKENS)
    measured = model.losses(given.solver)
    derived = derived_losses(model, measured, given.solver)
    rows = []
    for bits in (2, 4, 8):
        ratios = [
            derived[name][f] / measured[name][f]
            for name, by_format in measured.items()
            for f in by_format
            if f.bits == bits and derived[name][f] != measured[name][f]
        ]
        low, middle, high = np.percentile(ratios, [10, 50, 90])
        rows.append((f"int{bits}", str(len(ratios)), f"{low:.2f}", f"{middle:.2f}", f"{high:.2f}"))
    sys.stdout.write(markdown(("derived over measured", "losses", "10 %", "median", "90 %"), rows) + "\n\n")
    rows = []
    for budget in BUDGETS:
        limits = [Limit(model.sizes, plan_bytes(model.uniform(budget), model.sizes))]
        kl = []
        for losses in (measured, derived):
            plan = allocate(losses, limits)
            kl.append(model.measured(model.stored("", given.solver, plan).values)[1])
        rows.append((f"bytes of {budget}", *(f"{value:.4g}" for value in kl), f"{kl[1] / kl[0]:.2f}"))
    sys.stdout.write(markdown(("KL of the plan", "measured", "derived", "ratio"), rows) + "\n")


if __name__ == "__main__":
    main()
