"""What a byte buys on a real checkpoint: our plans beside others', as perplexity and KL to fp32 on unseen text.

    python -m tests.evidence_real_checkpoint MODEL_FOLDER TEXT_FILE [--separator TEXT]

prints a table of docs/results/real-checkpoint.md. Plans are made, and weights rounded, on the first documents
of the text; perplexity and KL are of later ones, at every token. Budgets are the bytes of uniform formats,
counted as an artifact stores them, a tied table once. That is generous to the rivals, whose tools store the
table that tokens are looked up in apart from the head, in floating point.

onnxruntime's own quantizer rounds each matrix in a model of this matrix alone, whose product with the unit
matrix is what its kernel reads.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from onnxruntime.quantization.matmul_nbits_quantizer import (
    DefaultWeightOnlyQuantConfig,
    HQQWeightOnlyQuantConfig,
    KQuantWeightOnlyQuantConfig,
    MatMulNBitsQuantizer,
)

from edgeicl.models.loading import load_tokenizer
from edgeicl.numerics.size import group_bytes
from edgeicl.quantize.allocation import Limit, LossTable, SizeTable, allocate, merged, plan_bytes
from edgeicl.quantize.block_losses import block_losses
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.jaccard import layer_similarities
from edgeicl.quantize.offered_formats import offered_formats
from edgeicl.quantize.plan_loss import PlanLoss
from edgeicl.quantize.refinement import refine
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.solver import SolverName, solve
from edgeicl.quantize.stored_weights import read_again
from edgeicl.quantize.student_weights import read_weights
from edgeicl.report.tables import markdown
from edgeicl.specs.quant_plan import Format
from edgeicl.specs.source import TextSource
from edgeicl.tasks.text_source import read_texts

log = logging.getLogger(__name__)

Floats = NDArray[np.float32]
Plan = Mapping[str, Format]

OFFERED = tuple(
    Format(bits=bits, block_size=block, symmetric=symmetric)
    for bits, blocks in ((2, (64, 128)), (4, (32, 64, 128)), (8, (32, 64, 128)))
    for block in blocks
    for symmetric in (True, False)
)
BUDGETS = (
    Format(bits=2, block_size=64),
    Format(bits=4, block_size=128),
    Format(bits=4, block_size=32),
    Format(bits=8, block_size=128),
)
"""Uniform formats whose bytes are the budgets."""

MOST_TOKENS, CALIBRATION_DOCUMENTS, UNSEEN_DOCUMENTS = 256, 96, 64
ROUNDS = 2


@dataclass(frozen=True)
class Found:
    """One way to store the model within a budget: its weights by group, and its bytes."""

    name: str
    values: Mapping[str, Floats]
    stored_bytes: int


class Model:
    """A checkpoint at calibration text and at text that nothing was chosen on."""

    def __init__(self, folder: Path, text: TextSource) -> None:
        self.weights = read_weights(folder)
        tokenizer = load_tokenizer(folder)
        documents = [document.strip() for document in read_texts(text, base_folder=Path.cwd())]
        encodings = tokenizer.encode_batch(documents[: CALIBRATION_DOCUMENTS + UNSEEN_DOCUMENTS])
        read = [encoding.ids[:MOST_TOKENS] for encoding in encodings]
        self.calibration = CalibratedDecoder(self.weights, read[:CALIBRATION_DOCUMENTS])
        self.sensitivity = Sensitivity(self.calibration)
        self.unseen = CalibratedDecoder(self.weights, read[CALIBRATION_DOCUMENTS:])
        self.loss = Sensitivity(self.unseen, read_positions_per_sequence=MOST_TOKENS)
        self.sizes: SizeTable = {
            group.name: {f: group_bytes(*group.shape, f) for f in offered_formats(group, OFFERED)}
            for group in self.weights.groups
        }
        self._tables: dict[SolverName, LossTable] = {}

    def uniform(self, format_: Format) -> dict[str, Format]:
        return {group.name: format_ for group in self.weights.groups}

    def losses(self, solver: SolverName) -> LossTable:
        """Measured sensitivity of each group in each format."""
        if solver not in self._tables:
            table: dict[str, dict[Format, float]] = {name: {} for name in self.sizes}
            for format_ in OFFERED:
                groups = [group for group in self.weights.groups if format_ in self.sizes[group.name]]
                found = self.sensitivity.losses(groups, self.weights.matrices, format_, solver=solver)
                for group, loss in found.items():
                    table[group][format_] = loss
            self._tables[solver] = table
        return self._tables[solver]

    def stored(self, name: str, solver: SolverName, plan: Plan) -> Found:
        values = solve(solver, self.weights, plan, self.calibration)
        return Found(name, {g: read_again(m) for g, m in values.items()}, plan_bytes(plan, self.sizes))

    def measured(self, values: Mapping[str, Floats]) -> tuple[float, float]:
        """Perplexity of the unseen text, and KL to fp32 in nats a token."""
        replaced = {name: torch.from_numpy(matrix) for name, matrix in values.items()}
        hidden = self.unseen.embed(replaced)
        for index in range(self.unseen.layers):
            hidden = self.unseen.layer(index, hidden, replaced)
        following = self.unseen.tokens[1:]
        log_probabilities = torch.log_softmax(self.unseen.logits(hidden, replaced)[:-1], dim=-1)
        told = log_probabilities.gather(-1, following[:, None])[:, 0]
        last = torch.tensor(self.unseen.lengths).cumsum(0)[:-1] - 1  # what follows is another document
        within = torch.ones(len(told), dtype=torch.bool).index_fill(0, last, value=False)
        return exp(-float(told[within].double().mean())), self.loss.loss(replaced)


def ours(model: Model, limit_bytes: int) -> Found:
    """Measured sensitivity, exact allocation, refinement, GPTQ: every choice a recipe key."""
    limits = [Limit(model.sizes, limit_bytes)]
    start = allocate(model.losses("gptq"), limits)
    measure = PlanLoss("gptq", model.weights, model.calibration, model.sensitivity)
    found = refine(start, model.sizes, limits, measure=measure, near=measure.near, rounds=ROUNDS)
    return model.stored("edgeicl: sensitivity, GPTQ, refined", "gptq", found.plan)


def ours_rounded(model: Model, limit_bytes: int) -> Found:
    plan = allocate(model.losses("rtn"), [Limit(model.sizes, limit_bytes)])
    return model.stored("edgeicl: sensitivity, round to nearest", "rtn", plan)


def lsaq(model: Model, limit_bytes: int) -> Found:
    """Whole blocks by LSAQ's Jaccard similarity, rounded to nearest."""
    similarities = layer_similarities(model.calibration, top_k=10)
    importances = [1 - similarity for similarity in similarities]
    units = {g.name: g.name if g.layer is None else f"layers.{g.layer}" for g in model.weights.groups}
    losses: dict[str, dict[Format, float]] = {group.name: {} for group in model.weights.groups}
    for format_ in OFFERED:
        groups = [group for group in model.weights.groups if format_ in model.sizes[group.name]]
        for group, loss in block_losses(groups, model.weights.matrices, format_, importances).items():
            losses[group][format_] = loss
    by_unit = allocate(merged(losses, units), [Limit(merged(model.sizes, units), limit_bytes)])
    return model.stored("LSAQ's Jaccard", "rtn", {group: by_unit[unit] for group, unit in units.items()})


def first_and_last(model: Model, limit_bytes: int) -> Found | None:
    """More bits for the embedding, the head and the first and last block; the most that fit."""
    edges = (0, model.weights.anatomy.layers - 1, None)
    plans = []
    for high in OFFERED:
        for low in OFFERED:
            plan = {g.name: high if g.layer in edges else low for g in model.weights.groups}
            fitting = all(f in model.sizes[name] for name, f in plan.items())
            if high.bits > low.bits and fitting and plan_bytes(plan, model.sizes) <= limit_bytes:
                plans.append(plan)
    if not plans or model.weights.anatomy.layers < 3:
        return None
    best = max(plans, key=lambda plan: plan_bytes(plan, model.sizes))
    return model.stored("first and last layers", "rtn", best)


def rival_matrix(matrix: Floats, quantizer: Callable[[onnx.ModelProto], MatMulNBitsQuantizer]) -> Floats:
    """`matrix` [N, K] as onnxruntime's quantizer stores it and its kernel reads it again."""
    rows, columns = matrix.shape
    weight = onnx.numpy_helper.from_array(np.ascontiguousarray(matrix.T), "w")
    info = partial(onnx.helper.make_tensor_value_info, elem_type=onnx.TensorProto.FLOAT)
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "one",
        [info("x", shape=[columns, columns])],
        [info("y", shape=[columns, rows])],
        [weight],
    )
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10)
    working = quantizer(made)
    working.process()
    session = onnxruntime.InferenceSession(
        working.model.model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    unit = np.eye(columns, dtype=np.float32)
    return np.ascontiguousarray(np.asarray(session.run(None, {"x": unit})[0], np.float32).T)


def _default(model: onnx.ModelProto, *, bits: int, block: int, symmetric: bool) -> MatMulNBitsQuantizer:
    config = DefaultWeightOnlyQuantConfig(block_size=block, is_symmetric=symmetric, bits=bits)
    return MatMulNBitsQuantizer(model, bits=bits, block_size=block, is_symmetric=symmetric, algo_config=config)


def _k_quant(model: onnx.ModelProto, *, bits: int, block: int) -> MatMulNBitsQuantizer:
    named: dict[str, Any] = {"product": {"bits": bits, "group_size": block}}
    config = KQuantWeightOnlyQuantConfig(customized_weight_config=named)
    return MatMulNBitsQuantizer(model, bits=bits, block_size=block, algo_config=config)


def _hqq(model: onnx.ModelProto, *, bits: int, block: int) -> MatMulNBitsQuantizer:
    config = HQQWeightOnlyQuantConfig(block_size=block, bits=bits)
    return MatMulNBitsQuantizer(model, bits=bits, block_size=block, algo_config=config)


RIVALS: dict[str, Sequence[tuple[Format, Callable[[onnx.ModelProto], MatMulNBitsQuantizer]]]] = {
    "onnxruntime, default": [
        (f, partial(_default, bits=f.bits, block=f.block_size or 0, symmetric=f.symmetric))
        for f in OFFERED
        if f.bits in (4, 8)
    ],
    "onnxruntime, k-quant": [
        (f, partial(_k_quant, bits=f.bits, block=f.block_size or 0))
        for f in OFFERED
        if f.bits in (4, 8) and not f.symmetric
    ],
    "onnxruntime, HQQ": [
        (f, partial(_hqq, bits=f.bits, block=f.block_size or 0))
        for f in OFFERED
        if f.bits == 4 and not f.symmetric
    ],
}
"""Quantizer -> formats that it may store. Its HQQ stores zero points in fp32; here they count as packed."""


def rival(model: Model, name: str, limit_bytes: int) -> Found | None:
    """The best of its uniform formats within the budget, by KL on the unseen text itself."""
    found = []
    for format_, quantizer in RIVALS[name]:
        plan = model.uniform(format_)
        if any(format_ not in sizes for sizes in model.sizes.values()):
            continue
        if plan_bytes(plan, model.sizes) <= limit_bytes:
            try:
                values = {g: rival_matrix(matrix, quantizer) for g, matrix in model.weights.matrices.items()}
            except ValueError as error:  # its k-quant can't pack the zero point of a row that is one block
                log.warning("%s in %s: %s", name, format_, error)
                continue
            told = f"{name}, {format_}"
            found.append(Found(told, values, plan_bytes(plan, model.sizes)))
    return min(found, key=lambda one: model.measured(one.values)[1], default=None)


def table(model: Model) -> str:
    """Every way to store the model within each budget."""
    exact = model.measured(model.weights.matrices)[0]
    rows = [("", "fp32", "", f"{exact:.3f}", "", "")]
    for format_ in BUDGETS:
        limit_bytes = plan_bytes(model.uniform(format_), model.sizes)
        uniform = model.stored(f"uniform {format_}, round to nearest", "rtn", model.uniform(format_))
        least = model.measured(uniform.values)[1]
        ways = [ours(model, limit_bytes), ours_rounded(model, limit_bytes), uniform]
        ways += [w for w in (lsaq(model, limit_bytes), first_and_last(model, limit_bytes)) if w is not None]
        ways += [w for w in (rival(model, name, limit_bytes) for name in RIVALS) if w is not None]
        for way in ways:
            perplexity, kl = model.measured(way.values)
            cells = (f"{way.stored_bytes:,}", f"{perplexity:.3f}", f"{kl:.4g}", f"{least / kl:.2f}")
            rows.append((f"{limit_bytes:,}", way.name, *cells))
        sys.stderr.write(f"budget of {format_} done\n")
    return markdown(("budget, bytes", "stored as", "bytes", "perplexity", "KL", "uniform's KL over it"), rows)


def main() -> None:
    """Prints the table."""
    for noisy in ("neural_compressor", "onnxruntime.quantization.matmul_nbits_quantizer"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--separator", default="\n\n", help="between the documents of the text")
    asked = parser.parse_args()
    text = TextSource(source=f"file:{asked.text.absolute()}", separator=asked.separator)
    sys.stdout.write(table(Model(asked.model, text)) + "\n")


if __name__ == "__main__":
    main()
