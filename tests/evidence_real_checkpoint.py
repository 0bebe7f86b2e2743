"""What a byte buys on a real checkpoint: our plans beside others', as perplexity and KL to fp32 on unseen text.

    python -m tests.evidence_real_checkpoint MODEL_FOLDER TEXT_FILE [--separator TEXT] [--budget FORMAT]
        [--autoround-python PATH]

prints a table of docs/results/real-checkpoint.md. Plans are made, and weights rounded, on the first documents
of the text; perplexity and KL are of later ones, at every token. Budgets are the bytes of uniform formats,
counted as an artifact stores them, a tied table once. That is generous to the rivals, whose tools store the
table that tokens are looked up in apart from the head, in floating point. AutoRound runs in the Python named by
`--autoround-python`, in which it is installed; it leaves the table alone, which is rounded to nearest here.

What is recovered is the uniform plan itself, trained on the documents that plans are made on and on texts that
the checkpoint writes. `--rows` names the kinds of rows that are asked for; all unless given.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeicl.models.loading import load_model
from edgeicl.quantize.allocation import Limit, allocate, plan_bytes
from edgeicl.quantize.jaccard import layer_similarities
from edgeicl.quantize.plan_loss import PlanLoss
from edgeicl.quantize.recovery import recover
from edgeicl.quantize.reference_plans import first_and_last_plan, lsaq_plan
from edgeicl.quantize.refinement import refine
from edgeicl.quantize.solver import solve
from edgeicl.quantize.stored_weights import read_again
from edgeicl.quantize.student_in_training import StudentInTraining
from edgeicl.report.tables import markdown
from edgeicl.specs.quant_plan import Format
from edgeicl.specs.source import TextSource
from tests.autoround_rounding import layers_rounded
from tests.measured_checkpoint import OFFERED, PIECE_TOKENS, Found, Model
from tests.onnxruntime_rounding import quantizers, rounded_by

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]

BUDGETS = (
    Format(bits=2, block_size=64),
    Format(bits=4, block_size=128),
    Format(bits=4, block_size=32),
    Format(bits=8, block_size=128),
)
"""Uniform formats whose bytes are the budgets."""

RIVALS = quantizers(OFFERED)

ROWS = ("recovered", "plans", "rivals", "autoround")
MOST_TOKENS = 256
ROUNDS = 2


def ours(model: Model, limit_bytes: int) -> Found:
    """Measured sensitivity, exact allocation, refinement, GPTQ: every choice a recipe key."""
    limits = [Limit(model.sizes, limit_bytes)]
    start = allocate(model.losses("gptq"), limits)
    measure = PlanLoss("gptq", model.weights, model.calibration, model.sensitivity)
    found = refine(start, model.sizes, limits, measure=measure, near=measure.near, rounds=ROUNDS)
    return model.stored("edgeicl: sensitivity, GPTQ, refined", "gptq", found.plan)


def ours_recovered(model: Model, format_: Format, steps: int) -> Found:
    """A uniform plan, GPTQ, and training on text that plans are chosen on and on the checkpoint's own."""
    plan = model.uniform(format_)
    found = recover(
        StudentInTraining(
            load_model(model.folder), model.weights, solve("gptq", model.weights, plan, model.calibration)
        ),
        model.lessons,
        steps=steps,
        learning_rate=0.01,
        batch_size=8,
        seed=0,
    )
    sys.stderr.write(f"{format_}: {found.record}\n")
    values = {name: read_again(matrix) for name, matrix in found.stored.items()}
    name = f"edgeicl: uniform {format_}, GPTQ, recovered"
    return Found(name, values, plan_bytes(plan, model.sizes), found.weights)


def ours_rounded(model: Model, limit_bytes: int) -> Found:
    plan = allocate(model.losses("rtn"), [Limit(model.sizes, limit_bytes)])
    return model.stored("edgeicl: sensitivity, round to nearest", "rtn", plan)


def lsaq(model: Model, limit_bytes: int) -> Found:
    """Whole blocks by LSAQ's Jaccard similarity, rounded to nearest."""
    similarities = layer_similarities(model.calibration, top_k=10)
    plan = lsaq_plan(model.weights.groups, model.sizes, [Limit(model.sizes, limit_bytes)], similarities)
    assert plan is not None  # uniform plans fit
    return model.stored("LSAQ's Jaccard", "rtn", plan)


def first_and_last(model: Model, limit_bytes: int) -> Found | None:
    """More bits for the embedding, the head and the first and last block; the most that fit."""
    plan = first_and_last_plan(model.weights.groups, model.sizes, [Limit(model.sizes, limit_bytes)])
    return None if plan is None else model.stored("first and last layers", "rtn", plan)


def rival(model: Model, name: str, limit_bytes: int) -> Found | None:
    """The best of its uniform formats within the budget, by KL on the unseen text itself."""
    found = []
    for format_, quantizer in RIVALS[name]:
        plan = model.uniform(format_)
        if any(format_ not in sizes for sizes in model.sizes.values()):
            continue
        if plan_bytes(plan, model.sizes) <= limit_bytes:
            try:
                values = {g: rounded_by(quantizer, matrix) for g, matrix in model.weights.matrices.items()}
            except ValueError as error:  # its k-quant can't pack the zero point of a row that is one block
                log.warning("%s in %s: %s", name, format_, error)
                continue
            told = f"{name}, {format_}"
            found.append(Found(told, values, plan_bytes(plan, model.sizes)))
    return min(found, key=lambda one: model.measured(one.values)[1], default=None)


def autoround(model: Model, python: Path, budgets: Sequence[Format]) -> dict[Format, list[Found]]:
    """Budget -> the layers as AutoRound tunes them in the budget's format, and in a scheme that it searched.

    What lies outside of the layers is rounded to nearest in the budget's format; the search has what is left.
    """
    jobs: list[Format | int] = []
    outside: list[tuple[dict[str, Floats], int]] = []
    for format_ in budgets:
        plan = {group.name: format_ for group in model.weights.groups if group.layer is None}
        rounded = solve("rtn", model.weights, plan, model.calibration)
        size = plan_bytes(plan, model.sizes)
        outside.append(({name: read_again(matrix) for name, matrix in rounded.items()}, size))
        jobs += [format_, plan_bytes(model.uniform(format_), model.sizes) - size]
    found = iter(
        layers_rounded(
            python,
            model.folder,
            model.weights.groups,
            model.chosen_on,
            piece_tokens=PIECE_TOKENS,
            offered=OFFERED,
            jobs=jobs,
        )
    )
    rows: dict[Format, list[Found]] = {}
    for format_, (tables, size) in zip(budgets, outside, strict=True):
        rows[format_] = []
        for name in (f"uniform {format_}", "scheme search"):
            layers = next(found)
            sys.stderr.write(f"{name}: { {str(f): count for f, count in layers.formats.items()} }\n")
            told = f"AutoRound, {name}; table {format_}, round to nearest"
            rows[format_].append(Found(told, {**layers.values, **tables}, layers.stored_bytes + size))
    return rows


def ways(model: Model, format_: Format, rows: Sequence[str], *, recovery_steps: int) -> Iterator[Found]:
    """Every way to store the model within the bytes of the uniform format; that format itself in any case."""
    limit_bytes = plan_bytes(model.uniform(format_), model.sizes)
    yield model.stored(f"uniform {format_}, round to nearest", "rtn", model.uniform(format_))
    if "recovered" in rows:
        yield ours_recovered(model, format_, recovery_steps)
    if "plans" in rows:
        yield from (ours(model, limit_bytes), ours_rounded(model, limit_bytes))
    if "rivals" in rows:
        yield lsaq(model, limit_bytes)
        for found in (
            first_and_last(model, limit_bytes),
            *(rival(model, name, limit_bytes) for name in RIVALS),
        ):
            if found is not None:
                yield found


def table(
    model: Model,
    budgets: Sequence[Format],
    rows: Sequence[str],
    *,
    recovery_steps: int,
    autoround_python: Path | None,
) -> str:
    """What every way within each budget loses."""
    by_autoround = autoround(model, autoround_python, budgets) if autoround_python else {}
    exact = model.measured(model.weights.matrices)[0]
    found = [("", "fp32", "", f"{exact:.3f}", "", "")]
    for format_ in budgets:
        plan = model.uniform(format_)
        limit_bytes = plan_bytes(plan, model.sizes)
        least = model.measured(model.stored("", "rtn", plan).values)[1]
        own = ways(model, format_, rows, recovery_steps=recovery_steps)
        for way in chain(own, by_autoround.get(format_, ())):
            perplexity, kl = model.measured(way.values, way.weights)
            cells = (f"{way.stored_bytes:,}", f"{perplexity:.3f}", f"{kl:.4g}", f"{least / kl:.2f}")
            found.append((f"{limit_bytes:,}", way.name, *cells))
            sys.stderr.write(f"{found[-1]}\n")
    return markdown(("budget, bytes", "stored as", "bytes", "perplexity", "KL", "uniform's KL over it"), found)


def main() -> None:
    """Prints the table."""
    for noisy in ("neural_compressor", "onnxruntime.quantization.matmul_nbits_quantizer"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--separator", default="\n\n", help="between the documents of the text")
    named = {str(format_): format_ for format_ in OFFERED}
    parser.add_argument("--budget", action="append", choices=named, help="a uniform format")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=ROWS, help="kinds of rows; all unless named")
    parser.add_argument("--recovery-steps", type=int, default=300)
    parser.add_argument("--most-tokens", type=int, default=MOST_TOKENS, help="of a document; the rest is cut")
    parser.add_argument("--autoround-python", type=Path, help="of an environment that has auto-round")
    asked = parser.parse_args()
    if "autoround" in asked.rows and not asked.autoround_python:
        sys.stderr.write("AutoRound's rows are left out: --autoround-python names no Python that has it\n")
    text = TextSource(source=f"file:{asked.text.absolute()}", separator=asked.separator)
    budgets = [named[name] for name in asked.budget or map(str, BUDGETS)]
    model = Model(asked.model, text, most_tokens=asked.most_tokens)
    found = table(
        model,
        budgets,
        asked.rows,
        recovery_steps=asked.recovery_steps,
        autoround_python=asked.autoround_python if "autoround" in asked.rows else None,
    )
    sys.stdout.write(found + "\n")


if __name__ == "__main__":
    main()
