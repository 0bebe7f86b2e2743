"""An artifact in use: classifies and generates as an app would, with numpy, tokenizers and onnxruntime."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from edgeicl.errors import DataError
from edgeicl.models.onnx_decoder import OnnxDecoder
from edgeicl.progress import track
from edgeicl.specs.manifest import TaskFile
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder, pattern_columns, right_padded

_BATCH = 16


def available_threads() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Measured:
    """Accuracy of an artifact on one data set; shares between 0 and 1."""

    examples: int
    accuracy: float
    balanced_accuracy: float
    accuracy_by_label: dict[str, float]


class DeployedModel:
    """The model of an artifact folder and the task it was made for."""

    def __init__(self, folder: Path, *, threads: int | None = None) -> None:
        self._model_path = folder / "model.onnx"
        self._threads = threads or available_threads()
        self.task = TaskFile.model_validate_json((folder / "task.json").read_bytes())
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._encoder = PromptEncoder(
            self._tokenizer,
            pattern=self.task.pattern,
            verbalizers=self.task.verbalizers,
            separator=self.task.separator,
        )
        config = json.loads((folder / "config.json").read_text())
        self.context_tokens = int(config["max_position_embeddings"])

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the task's pattern needs."""
        return pattern_columns(self.task.pattern)

    def classify(self, columns: Mapping[str, str]) -> dict[str, float]:
        """Label -> probability, renormalized over the labels."""
        example = Example(columns, label=self._encoder.labels[0], where="the given text")
        row = self._probabilities(self._encoder.queries([example]))[0]
        return dict(zip(self._encoder.labels, map(float, row), strict=True))

    def measure(self, examples: Sequence[Example]) -> Measured:
        """Accuracy over `examples`, whose labels are the task's."""
        rows = self._encoder.queries(examples)
        truth = self._encoder.label_indices(examples)
        right = self._probabilities(rows).argmax(axis=1) == truth
        by_label = {
            label: float(right[truth == index].mean())
            for index, label in enumerate(self._encoder.labels)
            if (truth == index).any()
        }
        balanced = float(np.mean(list(by_label.values())))
        return Measured(len(examples), float(right.mean()), balanced, by_label)

    def generate(self, text: str, tokens: int) -> str:
        """The greedy continuation of `text` by up to `tokens` tokens."""
        ids = self._tokenizer.encode(text).ids
        self._check_length(len(ids) + tokens)
        decoder = self._decoder(context_tokens=len(ids) + tokens, batch_size=1)
        return str(self._tokenizer.decode(decoder.generate(ids, tokens)))

    def _probabilities(self, queries: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
        """[examples, labels]; a label's score is the sum of its tokens' log-probabilities."""
        prompts = [[*self._encoder.leading, *query] for query in queries]
        labels = [self._encoder.tokens[label] for label in self._encoder.labels]
        longest = max(map(len, prompts)) + max(map(len, labels))
        self._check_length(longest)
        batch = min(_BATCH, len(prompts))
        decoder = self._decoder(context_tokens=longest, batch_size=batch)
        scores = np.zeros((len(prompts), len(labels)))
        with track("classify", len(prompts)) as advance:
            for start in range(0, len(prompts), batch):
                rows = prompts[start : start + batch]
                filled = rows + rows[:1] * (batch - len(rows))  # the session's batch size is fixed
                scores[start : start + len(rows)] = _label_scores(decoder, filled, labels)[: len(rows)]
                advance(len(rows))
        shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True), dtype=np.float64)

    def _decoder(self, *, context_tokens: int, batch_size: int) -> OnnxDecoder:
        return OnnxDecoder(
            self._model_path, threads=self._threads, context_tokens=context_tokens, batch_size=batch_size
        )

    def _check_length(self, tokens: int) -> None:
        if tokens > self.context_tokens:
            raise DataError(
                f"{self._model_path.parent}: the text and its answer take {tokens} tokens; "
                f"expected at most {self.context_tokens}, the positions of the model",
                next_step="shorten the text, or generate fewer tokens",
            )


def _label_scores(
    decoder: OnnxDecoder, rows: Sequence[Sequence[int]], labels: Sequence[tuple[int, ...]]
) -> npt.NDArray[np.float64]:
    """Log-probability [rows, labels] of every label's tokens after every row."""
    scores = np.zeros((len(rows), len(labels)))
    after_query = _prefill(decoder, rows)
    for index, tokens in enumerate(labels):
        scores[:, index] = after_query[:, tokens[0]]
        for count in range(1, len(tokens)):
            further = _prefill(decoder, [[*row, *tokens[:count]] for row in rows])
            scores[:, index] += further[:, tokens[count]]
    return scores


def _prefill(decoder: OnnxDecoder, rows: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    """Log-probabilities [rows, vocabulary] of the token after each row."""
    ids, lengths = right_padded(rows)
    mask = (np.arange(ids.shape[1]) < lengths[:, None]).astype(np.int64)
    logits = decoder.prefill(ids, mask).astype(np.float64)
    top = logits.max(axis=1, keepdims=True)
    return np.asarray(logits - top - np.log(np.exp(logits - top).sum(axis=1, keepdims=True)))
