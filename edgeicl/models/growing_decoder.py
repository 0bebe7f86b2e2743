"""Runs a decoder that other exporters wrote: keys and values grow by one position a step, without a buffer.

The interface is OnnxDecoder's, so that whatever measures or checks one of them does so with the other. Keys and
values stay where the runtime put them and are handed back by reference, which is the least work such a graph
allows. The rows of a batch are run one after another, each without its padding: not every such graph takes its
positions from the mask. Numpy and onnxruntime alone.

Notation: B rows of the batch, T tokens of the step, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

try:
    from edgeicl.models.onnx_decoder import CACHE_TYPES, open_session
except ImportError:  # On a device the files lie side by side.
    from onnx_decoder import CACHE_TYPES, open_session  # type: ignore[import-not-found, no-redef]

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]


class GrowingDecoder:
    """One session of a graph with inputs `past_key_values.*` and outputs `present.*`, in the same order."""

    def __init__(
        self,
        model_path: Path,
        *,
        threads: int,
        context_tokens: int,
        batch_size: int = 1,
        weights_folder: Path | None = None,
    ) -> None:
        """Loads `model_path`; its weights come from `weights_folder` where that is given.

        Raises:
            ValueError: it has no key/value inputs.
        """
        started = time.perf_counter()
        self._session = open_session(model_path, threads=threads, weights_folder=weights_folder)
        self.load_ms = (time.perf_counter() - started) * 1e3
        self.threads: int = self._session.get_session_options().intra_op_num_threads
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        self.context_tokens = context_tokens
        self.batch_size = batch_size
        names = [entry.name for entry in self._session.get_inputs()]
        caches = [entry for entry in self._session.get_inputs() if entry.name.startswith("past_key_values.")]
        if not caches:
            raise ValueError(f"{model_path} has no input past_key_values.*; expected a decoder with a cache")
        self._cache_names = [entry.name for entry in caches]
        self._wants_positions = "position_ids" in names
        self._outputs = [entry.name for entry in self._session.get_outputs()]
        self._cache_shapes = [(entry.shape[1], entry.shape[3], CACHE_TYPES[entry.type]) for entry in caches]
        self.stand_at(0)

    def load_prefix(self, rows: Mapping[str, npt.NDArray[Any]]) -> None:
        """ValueError: nothing can be put into a cache that isn't there yet."""
        raise ValueError(f"a graph without a shared cache takes no prefix; found one of {len(rows)} arrays")

    def stand_at(self, tokens: int) -> None:
        """Puts so many positions of zeros before all that is read from now on, or nothing: to time depths."""
        self._before = tokens
        self._first_past = [
            ort.OrtValue.ortvalue_from_numpy(np.zeros((1, heads, tokens, head_size), number))
            for heads, head_size, number in self._cache_shapes
        ]
        self.reset()

    def prefill(self, input_ids: Ids, attention_mask: Ids | None = None) -> Logits:
        """Starts anew with prompts [B, T], padded on the right; logits [B, V] after each row's last token.

        Raises:
            ValueError: another number of rows, padding elsewhere, or more tokens than the context holds.
        """
        ids = np.ascontiguousarray(input_ids, dtype=np.int64)
        if ids.ndim != 2 or len(ids) != self.batch_size:
            raise ValueError(f"prompt of shape {list(ids.shape)}; expected {self.batch_size} rows")
        lengths = [ids.shape[1]] * len(ids)
        if attention_mask is not None:
            lengths = [int(row.sum()) for row in attention_mask]
            right_padded = np.arange(ids.shape[1]) < np.array(lengths)[:, None]
            if not (np.array_equal(right_padded, np.asarray(attention_mask) != 0) and min(lengths) > 0):
                raise ValueError("attention_mask pads elsewhere than on the right, or a row is empty")
        self.reset()
        return np.concatenate([self._run(row, ids[row : row + 1, :n]) for row, n in enumerate(lengths)])

    def decode(self, token_ids: Sequence[int] | Ids) -> Logits:
        """Appends one token to every row; logits [B, V] after it. ValueError if the context is full."""
        columns = np.asarray(token_ids, np.int64).reshape(self.batch_size, 1, 1)
        return np.concatenate([self._run(row, column) for row, column in enumerate(columns)])

    step = decode

    def reset(self) -> None:
        """Forgets everything that was read."""
        self._past: list[list[Any]] = [self._first_past] * self.batch_size
        self._lengths = [self._before] * self.batch_size

    def generate(self, prompt_ids: Sequence[int], n: int) -> list[int]:
        """`n` greedy tokens after a prompt, in every row of the batch the same; the first row is returned."""
        ids = np.tile(np.asarray(prompt_ids, np.int64), (self.batch_size, 1))
        tokens = [int(self.prefill(ids)[0].argmax())]
        while len(tokens) < n:
            tokens.append(int(self.step([tokens[-1]] * self.batch_size)[0].argmax()))
        return tokens[:n]

    def _run(self, row: int, ids: Ids) -> Logits:
        """Tokens [1, T] at the end of one row; logits [1, V] after the last."""
        binding = self._session.io_binding()
        before = self._lengths[row]
        total = before + ids.shape[1]
        if total > self.context_tokens:
            raise ValueError(f"the context of {self.context_tokens} tokens is full; expected a free position")
        binding.bind_cpu_input("input_ids", np.ascontiguousarray(ids))
        binding.bind_cpu_input("attention_mask", np.ones((1, total), np.int64))
        if self._wants_positions:
            binding.bind_cpu_input("position_ids", np.arange(before, total, dtype=np.int64)[None])
        for name, value in zip(self._cache_names, self._past[row], strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        logits, *self._past[row] = binding.get_outputs()
        self._lengths[row] = total
        last: Logits = logits.numpy()[:, -1]
        return last
