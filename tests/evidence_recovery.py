"""What `quantize.recover` brings back: the quickstart's distilled student in uniform formats of 2 and 4 bits.

    python -m tests.evidence_recovery [--steps N]

prints a table of docs/results/recovery.md: rounded to nearest, by GPTQ, and recovered from what GPTQ gave, at
the same bytes. Weights are rounded for the recipe's calibration prompts and recovered on its transfer examples
with the teacher's answers; accuracy and KL are of its evaluation data, KL at every token of 256 prompts each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from edgeicl.distill.stage import distill
from edgeicl.job import resolve
from edgeicl.models.loading import load_model, load_tokenizer
from edgeicl.numerics.size import group_bytes
from edgeicl.quantize.calibration import calibration_sequences
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.recovery import recover
from edgeicl.quantize.recovery_material import RecoveryMaterial
from edgeicl.quantize.solver import solve
from edgeicl.quantize.stored_weights import Stored, read_again
from edgeicl.quantize.student_in_training import StudentInTraining
from edgeicl.quantize.student_weights import StudentWeights, read_weights
from edgeicl.report.tables import markdown
from edgeicl.specs.quant_plan import Format
from edgeicl.specs.source import Source
from edgeicl.store import Store, cache_root
from edgeicl.tasks.label_words import with_label_words
from edgeicl.tasks.prompt import PromptEncoder
from edgeicl.tasks.readers import read_examples

FORMATS = (Format(bits=2, block_size=64), Format(bits=4, block_size=64))
KL_PROMPTS = 256


class Evaluation:
    """One data set: queries that the student answers."""

    def __init__(
        self, encoder: PromptEncoder, source: Source, weights: StudentWeights, base_folder: Path
    ) -> None:
        examples = read_examples(source, labels=encoder.labels, base_folder=base_folder)
        self._rows, self._gold = encoder.prompts(examples), encoder.label_indices(examples)
        self._labels = [word[0] for word in encoder.tokens.values()]
        self._exact = self._log_probabilities(weights, {}, self._rows[:KL_PROMPTS])

    def of(self, weights: StudentWeights, stored: Mapping[str, Stored]) -> tuple[float, float]:
        """Share of right answers, and KL to the unquantized student in nats a token."""
        found = self._log_probabilities(weights, stored, self._rows[:KL_PROMPTS])
        kl = (self._exact.exp() * (self._exact - found)).sum(-1).mean()
        answers = self._log_probabilities(weights, stored, self._rows, last=True)[:, self._labels].argmax(-1)
        return float(np.mean(answers.numpy() == self._gold)), float(kl)

    def _log_probabilities(
        self,
        weights: StudentWeights,
        stored: Mapping[str, Stored],
        rows: Sequence[Sequence[int]],
        *,
        last: bool = False,
    ) -> torch.Tensor:
        """Float64 [T, V] at every token, or [N, V] at the last of each row."""
        decoder = CalibratedDecoder(weights, rows)
        replaced = {name: torch.from_numpy(read_again(matrix)) for name, matrix in stored.items()}
        hidden = decoder.embed(replaced)
        for index in range(decoder.layers):
            hidden = decoder.layer(index, hidden, replaced)
        hidden = hidden[decoder.read_positions(1)] if last else hidden
        return torch.log_softmax(decoder.logits(hidden, replaced).double(), -1)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    job = resolve("quickstart", recipe_overrides=[f"quantize.recover={{steps: {steps}}}"], builds=False)
    job = replace(job, recipe=with_label_words(job.recipe, job.base_folder))
    recipe, settings = job.recipe, job.recipe.quantize.recover
    assert settings is not None
    distilled = distill(recipe, store=Store(cache_root()), base_folder=job.base_folder)
    student, task = distilled.student, recipe.task
    weights = read_weights(student)
    encoder = PromptEncoder(
        load_tokenizer(student),
        pattern=task.pattern,
        verbalizers=task.verbalizers,
        separator=task.separator,
    )
    assert task.out_of_domain is not None
    sources = (task.in_domain, task.out_of_domain)
    evaluations = [Evaluation(encoder, source, weights, job.base_folder) for source in sources]
    calibration = CalibratedDecoder(
        weights,
        calibration_sequences(
            task,
            student,
            examples=recipe.quantize.calibration_examples,
            seed=recipe.seed,
            base_folder=job.base_folder,
            behind_prefix=False,
        ),
    )
    material = RecoveryMaterial(
        recipe, settings, student=student, base_folder=job.base_folder, targets=distilled.targets, sets=[]
    )
    rows = []

    def row(told: str, stored_bytes: int, found: StudentWeights, stored: Mapping[str, Stored]) -> None:
        figures = [one.of(found, stored) for one in evaluations]
        accuracies, divergences = zip(*figures, strict=True)
        cells = [f"{accuracy:.1%}" for accuracy in accuracies] + [f"{kl:.4g}" for kl in divergences]
        rows.append((told, f"{stored_bytes:,}" if stored_bytes else "", *cells))

    row("fp32", 0, weights, {})
    for format_ in FORMATS:
        plan = {group.name: format_ for group in weights.groups}
        stored_bytes = sum(group_bytes(*group.shape, format_) for group in weights.groups)
        for solver in ("rtn", "gptq"):
            stored = solve(solver, weights, plan, calibration)
            row(f"{format_}, {solver}", stored_bytes, weights, stored)
        found = recover(
            StudentInTraining(load_model(student), weights, stored),
            material.lessons,
            steps=settings.steps,
            learning_rate=settings.learning_rate,
            batch_size=settings.batch_size,
            seed=recipe.seed,
        )
        sys.stderr.write(f"{format_}: {found.record}\n")
        row(f"{format_}, recovered", stored_bytes, found.weights, found.stored)
    headers = ("stored as", "bytes", "in-domain", "out-of-domain", "KL, in-domain", "KL, out-of-domain")
    sys.stdout.write(markdown(headers, rows) + "\n")


if __name__ == "__main__":
    main()
