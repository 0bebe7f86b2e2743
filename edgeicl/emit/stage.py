"""The emit stage: writes the artifact's files and publishes them only if every check passes."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgeicl.emit.accuracy import artifact_logits, compare_accuracy, predict
from edgeicl.emit.deployment_files import MODEL_FILE, write_deployment_files
from edgeicl.emit.generation_checks import check_genai, check_greedy, check_transformers_tokenizer
from edgeicl.emit.lowering import file_entry, write_model
from edgeicl.emit.parity import check_parity, parity_cases
from edgeicl.emit.reference import all_logits, last_logits, reference_model
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.errors import BudgetError, DataError
from edgeicl.models.anatomy import opt_config
from edgeicl.models.loading import load_model, load_tokenizer
from edgeicl.models.model_folder import model_config, weights_digest
from edgeicl.models.onnx_decoder import OnnxDecoder
from edgeicl.progress import track
from edgeicl.specs.byte_size import format_byte_size
from edgeicl.specs.manifest import (
    ArtifactAccuracy,
    Deviation,
    EmitChecks,
    LedgerEntry,
    ParityCheck,
    TaskFile,
)
from edgeicl.specs.recipe import Recipe, Source
from edgeicl.specs.target import Target
from edgeicl.store import StageOutput, Store, file_sha256
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder, query_text
from edgeicl.tasks.readers import read_examples

log = logging.getLogger(__name__)

CHECKS_FILE = "checks.json"
_ACCURACY_EXAMPLES = 512
_ACCURACY_BATCH = 16
_GENERATED_TOKENS = 12
_PROMPTS = 3


def emit(
    recipe: Recipe,
    target: Target,
    *,
    student: Path,
    quantized: StageOutput,
    store: Store,
    base_folder: Path,
) -> StageOutput:
    """The artifact's files and `checks.json`, from the quantized weights of `student`.

    Raises:
        DataError: a model that there is no graph for, or data that can't be used.
        BudgetError: the files take more than the target's artifact budget.
        ParityError, QualityError: the artifact computes something else, or is worse than the recipe allows.
    """
    sources = [source for source in (recipe.task.in_domain, recipe.task.out_of_domain) if source is not None]
    inputs = {
        "quantized": quantized.digest,
        "student": weights_digest(student),
        "task": recipe.task.model_dump(mode="json"),
        "data": [_data_digest(source, base_folder) for source in sources],
        "emit": recipe.emit.model_dump(mode="json"),
        "limits": recipe.limits.model_dump(mode="json"),
        "seed": recipe.seed,
        "target": target.model_dump(mode="json", include={"context_tokens", "threads", "budget"}),
    }

    def build(folder: Path) -> None:
        _Emission(recipe, target, student, quantized.path, base_folder, folder).run()

    return store.run("emit", inputs, build)


class _Emission:
    """One run of the stage into one folder."""

    def __init__(
        self, recipe: Recipe, target: Target, student: Path, quantized: Path, base_folder: Path, folder: Path
    ) -> None:
        self.recipe, self.target, self.student, self.folder = recipe, target, student, folder
        self.base_folder = base_folder
        self.config = opt_config(model_config(student))
        self.weights = QuantizedWeights(quantized)
        self.tokenizer = load_tokenizer(student)
        task = recipe.task
        self.encoder = PromptEncoder(
            self.tokenizer, pattern=task.pattern, verbalizers=task.verbalizers, separator=task.separator
        )
        self.positions = int(self.config["max_position_embeddings"])
        self.threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1

    def run(self) -> None:
        """Writes everything, checks everything, writes `checks.json` last."""
        for left_over in self.folder.iterdir():
            shutil.rmtree(left_over) if left_over.is_dir() else left_over.unlink()
        in_domain = self._examples(self.recipe.task.in_domain)
        ledger = self._write()
        parity = self._parity()
        deviations = self._generation(in_domain[:_PROMPTS])
        accuracy = self._accuracy(in_domain)
        checks = EmitChecks(ledger=ledger, parity=parity, accuracy=accuracy, deviations=tuple(deviations))
        (self.folder / CHECKS_FILE).write_text(checks.model_dump_json(indent=1) + "\n")

    def _write(self) -> tuple[LedgerEntry, ...]:
        task = self.recipe.task
        ledger = write_model(self.folder, self.config, self.weights)
        files = write_deployment_files(
            self.folder,
            model_config(self.student),
            self.tokenizer,
            TaskFile(
                pattern=task.pattern,
                verbalizers=task.verbalizers,
                verbalizer_tokens=self.encoder.tokens,
                separator=task.separator,
            ),
            context_tokens=self.target.context_tokens,
            threads=self.target.threads,
        )
        ledger += [file_entry(self.folder, file) for file in files]
        total = sum(entry.bytes for entry in ledger)
        log.info("artifact: %d bytes; the plan predicted %d", total, self.weights.plan.predicted_artifact_bytes)
        budget = self.target.budget.artifact_bytes
        if budget is not None and total > budget:
            raise BudgetError(
                f"the artifact takes {total:,} bytes ({format_byte_size(total)}), the budget of target "
                f"{self.target.name} is {budget:,}; the plan predicted "
                f"{self.weights.plan.predicted_artifact_bytes:,}",
                smallest_bytes=total,
                next_step="allow the target more bytes, or hand in a plan with fewer bits",
            )
        return tuple(ledger)

    def _parity(self) -> tuple[ParityCheck, ...]:
        cases = parity_cases(
            int(self.config["vocab_size"]),
            min(self.positions, self.target.context_tokens),
            seed=self.recipe.seed,
        )
        checkpoint = self.folder / "checkpoint"
        checkpoint.mkdir(exist_ok=True)
        reference = all_logits(reference_model(self.config, self.weights))
        # one thread: a few hundred tokens, and many short waits for other threads are slow on a busy computer
        return check_parity(self.folder / MODEL_FILE, reference, cases, threads=1, scratch=checkpoint)

    def _generation(self, examples: Sequence[Example]) -> list[Deviation]:
        task = self.recipe.task
        prompts = self._prompts(examples, reserve_tokens=_GENERATED_TOKENS)
        decoder = OnnxDecoder(
            self.folder / MODEL_FILE,
            threads=self.threads,
            context_tokens=max(map(len, prompts)) + _GENERATED_TOKENS,
        )
        generated = check_greedy(decoder, prompts, _GENERATED_TOKENS)
        texts = [query_text(task.pattern, example) for example in examples]
        texts += [*task.verbalizers.values(), *([task.separator] if task.separator else [])]
        check_transformers_tokenizer(self.folder, texts)
        return check_genai(self.folder, prompts, generated, texts)

    def _accuracy(self, in_domain: Sequence[Example]) -> tuple[ArtifactAccuracy, ...]:
        data: list[tuple[str, Sequence[Example], float | None]] = [
            ("in_domain", in_domain, self.recipe.limits.accuracy_drop_points)
        ]
        if self.recipe.task.out_of_domain is not None:
            # reported, not limited: the recipe's limit is a promise about the task it was made for
            data.append(("out_of_domain", self._examples(self.recipe.task.out_of_domain), None))
        labels = [self.encoder.tokens[label] for label in self.encoder.labels]
        longest_label = max(map(len, labels))
        prompts = {name: self._prompts(rows, reserve_tokens=longest_label) for name, rows, _ in data}
        longest = max(len(prompt) for rows in prompts.values() for prompt in rows) + longest_label
        decoder = OnnxDecoder(
            self.folder / MODEL_FILE, threads=self.threads, context_tokens=longest, batch_size=_ACCURACY_BATCH
        )
        scorers = (last_logits(load_model(self.student)), artifact_logits(decoder))
        results = []
        with track("artifact beside student", 2 * sum(map(len, prompts.values()))) as advance:
            for name, rows, limit in data:
                student, artifact = (
                    predict(scorer, prompts[name], labels, batch_size=_ACCURACY_BATCH, advance=advance)
                    for scorer in scorers
                )
                results.append(
                    compare_accuracy(
                        data=name,
                        student=student,
                        artifact=artifact,
                        truth=self.encoder.label_indices(rows),
                        limit_points=limit,
                    )
                )
        return tuple(results)

    def _examples(self, source: Source) -> list[Example]:
        """Up to `_ACCURACY_EXAMPLES` of a source, evenly spaced over it."""
        examples = read_examples(source, labels=self.encoder.labels, base_folder=self.base_folder)
        count = min(len(examples), _ACCURACY_EXAMPLES)
        return [examples[int(index)] for index in np.linspace(0, len(examples) - 1, count).round()]

    def _prompts(self, examples: Sequence[Example], *, reserve_tokens: int) -> list[list[int]]:
        prompts = [[*self.encoder.leading, *query] for query in self.encoder.queries(examples)]
        for example, prompt in zip(examples, prompts, strict=True):
            if len(prompt) + reserve_tokens > self.positions:
                raise DataError(
                    f"{example.where or 'an example'}: the query takes {len(prompt)} tokens and "
                    f"{reserve_tokens} more are generated; the student has {self.positions} positions"
                )
        return prompts


def _data_digest(source: Source, base_folder: Path) -> str | None:
    """Hash of a local file, whose contents a recipe doesn't pin down; None for other sources."""
    kind, _, name = source.source.partition(":")
    path = base_folder / Path(name).expanduser()
    return file_sha256(path) if kind == "file" and path.is_file() else None
