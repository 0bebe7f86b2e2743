"""One artifact: its files are written, and checked one way after another, before anything is published."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray

from edgeicl.emit.accuracy import artifact_logits, compare_accuracy, predict
from edgeicl.emit.deployment_files import write_deployment_files
from edgeicl.emit.generation_checks import (
    check_genai,
    check_greedy,
    check_repeatable,
    check_transformers_tokenizer,
)
from edgeicl.emit.graph_source import ExportedGraph, FusedGraph, GraphSource
from edgeicl.emit.integer_parity import check_integer_products
from edgeicl.emit.lowering import file_entry
from edgeicl.emit.optimum_check import check_optimum
from edgeicl.emit.parity import SHIPPED_TOLERANCE_OF_HALVES, check_parity, parity_cases
from edgeicl.emit.prefix import prefix_deviations, prefix_use, write_prefix_file
from edgeicl.emit.provider import CUDA, check_on_provider, cuda_available, provider_deviations
from edgeicl.emit.query_room import require_query_room
from edgeicl.emit.reference import last_logits
from edgeicl.emit.size_check import require_budget
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.checkpoint import Checkpoint
from edgeicl.models.growing_decoder import GrowingDecoder
from edgeicl.models.loading import load_model, load_tokenizer
from edgeicl.models.model_folder import model_config
from edgeicl.models.onnx_decoder import OnnxDecoder
from edgeicl.models.prefix_file import Rows, read_prefix
from edgeicl.models.streamed_model import load_streamed
from edgeicl.progress import track
from edgeicl.specs.manifest import (
    MODEL_FILE,
    PREFIX_FILE,
    ArtifactAccuracy,
    Deviation,
    EmitChecks,
    LedgerEntry,
    ParityCheck,
    PrefixUse,
    TaskFile,
)
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.target import Target
from edgeicl.store import CHECKPOINT
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder, query_text
from edgeicl.tasks.verbalizer import label_columns
from edgeicl.usable_cores import usable_cores

log = logging.getLogger(__name__)

Checks = tuple[ParityCheck, ...]

CHECKS_FILE = "checks.json"
_ACCURACY_BATCH = 16
_GENERATED_TOKENS = 12
_PROMPTS = 3


class Emission:
    """One run of the stage into one folder.

    Args:
        quantized: The output folder of the quantize stage.
        data: Examples that student and artifact are compared on, by data set.
        sets: What stands before every query: of each demonstration set, token ids [P] or vectors [P, H].
        folder: Where everything is written.
        export: Optimum's export of the student, where it has no graph of ours.

    Raises:
        As `emit`, from `run`.
    """

    def __init__(
        self,
        recipe: Recipe,
        target: Target,
        student: Path,
        quantized: Path,
        data: Mapping[str, Sequence[Example]],
        sets: Sequence[NDArray[Any]],
        folder: Path,
        export: Path | None = None,
    ) -> None:
        self.recipe, self.target, self.student, self.folder = recipe, target, student, folder
        self.data, self.sets = data, sets
        self.set_tokens = max(map(len, sets), default=0)
        self.exact_rows: list[Rows] = []
        self.optimum_agrees: bool | None = None
        self.config = model_config(student)
        self.anatomy = anatomy_of(self.config)
        self.checkpoint = Checkpoint(student, self.anatomy.prefix)
        self.weights = QuantizedWeights(quantized)
        self.graph: GraphSource = FusedGraph(student, self.weights)
        if export is not None:
            self.graph = ExportedGraph(student, self.weights, export=export)
        self.tokenizer = load_tokenizer(student)
        task = recipe.task
        self.encoder = PromptEncoder(
            self.tokenizer, pattern=task.pattern, verbalizers=task.verbalizers, separator=task.separator
        )
        self.head_tokens = label_columns(self.encoder.tokens) if recipe.emit.head == "verbalizers" else None
        self.positions = self.anatomy.positions
        self.context_tokens = min(self.positions, target.context_tokens)
        self.threads = len(usable_cores())

    def run(self) -> None:
        """Writes everything, checks everything, writes `checks.json` last."""
        prompts = {name: self._prompts(examples) for name, examples in self.data.items()}
        longest = max(len(prompt) for rows in prompts.values() for prompt in rows) + self.longest_label
        use = prefix_use(self.sets, longest_query_tokens=longest) if self.sets else None
        ledger = self._write(use)
        parity = self._parity()
        deviations = [
            *self.graph.deviations,
            *provider_deviations(self.target),
            *self._generation(prompts["in_domain"][:_PROMPTS]),
        ]
        accuracy = self._accuracy(prompts)
        checks = EmitChecks(
            ledger=ledger,
            parity=parity,
            accuracy=accuracy,
            prefix=use,
            logit_tokens=self.head_tokens,
            engine=self.graph.engine,
            optimum_agrees=self.optimum_agrees,
            deviations=tuple(deviations),
        )
        (self.folder / CHECKS_FILE).write_text(checks.model_dump_json(indent=1) + "\n")

    def _write(self, use: PrefixUse | None) -> tuple[LedgerEntry, ...]:
        task = self.recipe.task
        ledger = self.graph.write(self.folder)
        if self.sets:
            self.exact_rows = write_prefix_file(self.folder, self.sets, bits=self._prefix_bits)
            ledger.append(file_entry(self.folder, PREFIX_FILE))
        files = write_deployment_files(
            self.folder,
            self.config,
            self.tokenizer,
            TaskFile(
                pattern=task.pattern,
                verbalizers=task.verbalizers,
                verbalizer_tokens=self.encoder.tokens,
                separator=task.separator,
                score=task.score,
                prefix=use,
                logit_tokens=self.head_tokens,
            ),
            context_tokens=self.target.context_tokens,
            threads=self.target.threads,
            provider=self.target.provider,
            position_ids=self.graph.takes_positions(self.folder),
        )
        ledger += [file_entry(self.folder, file) for file in files]
        total = sum(entry.bytes for entry in ledger)
        predicted = self.weights.plan.predicted_artifact_bytes
        log.info("artifact: %d bytes; the plan predicted %d", total, predicted)
        require_budget(total, predicted_bytes=predicted, target=self.target)
        return tuple(ledger)

    def _parity(self) -> tuple[ParityCheck, ...]:
        checkpoint = self.folder / CHECKPOINT
        checkpoint.mkdir(exist_ok=True)
        reference = self.graph.reference(self.head_tokens)

        def check(where: str, before: NDArray[Any] | None, prefix: tuple[Rows, Rows] | None) -> Checks:
            room = self.context_tokens - (0 if before is None else len(before))
            # one thread: few tokens, and many short waits for other threads are slow on a busy computer
            return check_parity(
                self.folder / MODEL_FILE,
                reference(before),
                parity_cases(self.anatomy.vocabulary, room, seed=self.recipe.seed, where=where),
                threads=1,
                scratch=checkpoint,
                prefix=prefix,
                head_tokens=self.head_tokens,
                cache_bits=self.weights.plan.cache_bits,
                activation_bits=self.weights.plan.activation_bits,
                decoder=self.graph.decoder,
            )

        products = check_integer_products(
            self.folder / MODEL_FILE,
            self.weights,
            rectified=self.anatomy.rectified,
            seed=self.recipe.seed,
        )
        checks = products + check("", None, None)
        if self.target.provider == "cuda" and cuda_available():
            checks += check_on_provider(
                self.folder / MODEL_FILE,
                reference(None),
                parity_cases(self.anatomy.vocabulary, self.context_tokens, seed=self.recipe.seed)[0],
                provider=CUDA,
                tolerance=SHIPPED_TOLERANCE_OF_HALVES,
                head_tokens=self.head_tokens,
            )
        for number, rows in enumerate(zip(self.sets, self.exact_rows, self._shipped_rows(), strict=True)):
            checks += check(f" behind set {number}", rows[0], rows[1:])
        return checks

    def _generation(self, prompts: Sequence[Sequence[int]]) -> list[Deviation]:
        """Greedy tokens behind the prefix; and, of a whole prompt, those that onnxruntime-genai makes too.

        An artifact that has logits of labels alone generates nothing: it is read twice instead.
        """
        task = self.recipe.task
        longest = max(map(len, prompts))
        tokens = min(_GENERATED_TOKENS, self.context_tokens - self.set_tokens - longest)
        decoder = self._decoder(self.set_tokens + longest + tokens)
        texts = [query_text(task.pattern, example) for example in self.data["in_domain"][: len(prompts)]]
        texts += [*task.verbalizers.values(), *([task.separator] if task.separator else [])]
        check_transformers_tokenizer(self.folder, texts)
        if self.head_tokens is not None:
            check_repeatable(decoder, prompts)
            for rows in self._shipped_rows():
                decoder.load_prefix(rows)
                check_repeatable(decoder, prompts)
            return []
        # genai reads demonstrations as tokens; where there are none, it can be asked for the model alone only
        before: Sequence[int] = ()
        if self.sets:
            before = self.sets[0].tolist() if self.sets[0].ndim == 1 else self.encoder.leading
        whole = [[*before, *prompt] for prompt in prompts]
        generated = check_greedy(decoder, whole, tokens)
        for rows in self._shipped_rows():
            decoder.load_prefix(rows)
            check_greedy(decoder, prompts, tokens)
        genai = check_genai(self.folder, prompts, generated, texts, before)
        optimum, self.optimum_agrees = check_optimum(self.folder, whole, generated)
        return [*genai, *optimum, *(prefix_deviations(self.sets) if self.sets else ())]

    def _accuracy(self, prompts: Mapping[str, Sequence[Sequence[int]]]) -> tuple[ArtifactAccuracy, ...]:
        labels = [self.encoder.tokens[label] for label in self.encoder.labels]
        # The artifact may have a logit for each label and no other.
        columns = labels if self.head_tokens is None else [(column,) for column in range(len(labels))]
        longest = max(len(prompt) for rows in prompts.values() for prompt in rows) + self.longest_label
        decoder = self._decoder(self.set_tokens + longest, _ACCURACY_BATCH)
        whole = self.checkpoint.is_held or self.anatomy.exported
        student = load_model(self.student) if whole else load_streamed(self.student)
        before: Sequence[NDArray[Any] | None] = [*self.sets] or [None]
        # out of domain it is reported, not limited: the limit is a promise about the task it was made for
        limits = {"in_domain": self.recipe.limits.accuracy_drop_points}
        results = []
        asked = 2 * len(before) * sum(map(len, prompts.values()))
        with track("artifact beside student", asked) as advance:
            for name, rows in prompts.items():
                by_student, by_artifact = (
                    predict(
                        scorers,
                        rows,
                        read,
                        batch_size=_ACCURACY_BATCH,
                        advance=advance,
                        score=self.recipe.task.score,
                    )
                    for scorers, read in (
                        ((last_logits(student, values) for values in before), labels),
                        (artifact_logits(decoder, self._shipped_rows()), columns),
                    )
                )
                results.append(
                    compare_accuracy(
                        data=name,
                        student=by_student,
                        artifact=by_artifact,
                        truth=self.encoder.label_indices(self.data[name]),
                        limit_points=limits.get(name),
                    )
                )
        return tuple(results)

    def _decoder(self, context_tokens: int, batch_size: int = 1) -> OnnxDecoder | GrowingDecoder:
        return self.graph.decoder(
            self.folder / MODEL_FILE,
            threads=self.threads,
            context_tokens=context_tokens,
            batch_size=batch_size,
        )

    @property
    def _prefix_bits(self) -> Literal[16, 32]:
        """Of floating-point keys and values in the file: no more than the cache has."""
        return 16 if self.weights.plan.cache_bits == 16 else self.recipe.emit.prefix_bits

    def _shipped_rows(self) -> list[Rows]:
        return read_prefix(self.folder / PREFIX_FILE)[0] if self.sets else []

    @property
    def longest_label(self) -> int:
        return max(map(len, self.encoder.tokens.values()))

    def _prompts(self, examples: Sequence[Example]) -> list[list[int]]:
        """The queries as token ids; DataError for one that doesn't fit the context together with a label."""
        prompts = self.encoder.queries(examples) if self.sets else self.encoder.prompts(examples)
        require_query_room(
            examples,
            prompts,
            longest_label=self.longest_label,
            before=self.set_tokens,
            positions=self.positions,
            target=self.target,
        )
        return prompts
