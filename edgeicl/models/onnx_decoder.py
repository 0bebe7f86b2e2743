"""Runs an artifact with numpy and onnxruntime alone: this file is copied to devices beside the bench runner.

Everything that a decode step reads or writes is allocated and bound once: the token ids, a mask as wide as
the context, the logits, and one key/value buffer per layer that is input and output at the same time. A step
changes the token, sets one mask column per row, and runs. The graph takes lengths from the sum of the
mask, not from its width, which is what makes the constant width possible.

A prefix is put into the cache once, and every prompt starts behind it. Attention then takes one row at a time
(onnxruntime's GroupQueryAttention refuses a batch of several tokens after a past, and padding with it), so such
a prompt is read row by row, each into its own part of the shared buffers; decoding stays one run for all rows.

Notation: B rows of the batch, T prompt tokens, V vocabulary, C context tokens, P tokens of the prefix.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]

CACHE_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8}
"""Of a graph's `past_key_values.*` -> numpy's."""


def open_session(
    model_path: Path,
    *,
    threads: int,
    weights_folder: Path | None = None,
    providers: Sequence[Any] = ("CPUExecutionProvider",),
) -> ort.InferenceSession:
    """A session on the CPU unless told otherwise.

    `weights_folder` holds the weights where they don't lie beside the graph.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    model: str | bytes = str(model_path)
    if weights_folder is not None:
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(weights_folder)
        )
        model = Path(model_path).read_bytes()
    return ort.InferenceSession(model, options, providers=list(providers))


class OnnxDecoder:
    """One session and one key/value cache. Not safe for use by several threads at once."""

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
            ValueError: `model_path` has no key/value cache to bind.
        """
        started = time.perf_counter()
        self._session = open_session(model_path, threads=threads, weights_folder=weights_folder)
        self.load_ms = (time.perf_counter() - started) * 1e3
        self.threads: int = self._session.get_session_options().intra_op_num_threads
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        self.context_tokens = context_tokens
        self.batch_size = batch_size

        caches = [entry for entry in self._session.get_inputs() if entry.name.startswith("past_key_values.")]
        if not caches:
            raise ValueError(
                f"{model_path} has no input past_key_values.0.key; expected a decoder with a cache"
            )
        heads, head_size = caches[0].shape[1], caches[0].shape[3]
        self.vocabulary: int = self._session.get_outputs()[0].shape[-1]
        cache_shape = (batch_size, heads, context_tokens, head_size)
        self._cache = {entry.name: np.zeros(cache_shape, CACHE_TYPES[entry.type]) for entry in caches}
        self._mask = np.zeros((batch_size, context_tokens), np.int64)
        self._tokens = np.zeros((batch_size, 1), np.int64)
        self._logits = np.zeros((batch_size, 1, self.vocabulary), np.float32)
        self._lengths = np.zeros(batch_size, np.int64)
        self._rows = np.arange(batch_size)
        self._decode_binding = self._binding(self._tokens)
        self.prefix_tokens = 0
        self._row_bindings: list[Any] = []

    def load_prefix(self, rows: Mapping[str, npt.NDArray[Any]]) -> None:
        """Puts keys and values [heads, P, head_size], by cache input, before all that is read from now on.

        Raises:
            ValueError: rows that don't fit this graph, or that leave no room in the context.
        """
        _, heads, _, head_size = next(iter(self._cache.values())).shape
        tokens = {values.shape[1] for values in rows.values() if values.ndim == 3}
        expected = {name: (heads, count, head_size) for name in self._cache for count in tokens}
        if len(tokens) != 1 or {name: values.shape for name, values in rows.items()} != expected:
            found = sorted({values.shape for values in rows.values()})
            raise ValueError(
                f"a prefix of {len(rows)} arrays of the shapes {found}; expected "
                f"[{heads}, P, {head_size}] for each of the {len(self._cache)} cache inputs"
            )
        held, given = next(iter(self._cache.values())).dtype, next(iter(rows.values())).dtype
        if (held == np.int8) != (given == np.int8):
            raise ValueError(f"a prefix of {given} for a cache of {held}; expected integers for integers alone")
        (count,) = tokens
        if not 0 < count < self.context_tokens:
            raise ValueError(f"a prefix of {count} tokens; expected 1..{self.context_tokens - 1}")
        for name, values in rows.items():
            self._cache[name][:, :, :count] = values
        self.prefix_tokens = count
        self._row_bindings = [
            self._binding(self._tokens[row : row + 1], slice(row, row + 1)) for row in range(self.batch_size)
        ]
        self.reset()

    def stand_at(self, tokens: int) -> None:
        """Puts so many positions of zeros before all that is read from now on, or nothing: to time depths."""
        if tokens:
            heads, _, head_size = next(iter(self._cache.values())).shape[1:]
            zeros = {
                name: np.zeros((heads, tokens, head_size), cache.dtype) for name, cache in self._cache.items()
            }
            self.load_prefix(zeros)
        else:
            self.prefix_tokens, self._row_bindings = 0, []
            self.reset()

    def prefill(self, input_ids: Ids, attention_mask: Ids | None = None) -> Logits:
        """Starts anew with prompts [B, T], padded on the right; logits [B, V] after each row's last token.

        Behind a prefix, if one is loaded.

        Raises:
            ValueError: wrong batch size, more tokens than the context holds, or padding elsewhere.
        """
        ids = np.ascontiguousarray(input_ids, dtype=np.int64)
        room = self.context_tokens - self.prefix_tokens
        if ids.ndim != 2 or ids.shape[0] != self.batch_size or not 0 < ids.shape[1] <= room:
            raise ValueError(f"prompt of shape {list(ids.shape)}; expected [{self.batch_size}, 1..{room}]")
        lengths = np.full(self.batch_size, ids.shape[1], np.int64)
        if attention_mask is not None:
            lengths = np.asarray(attention_mask, dtype=np.int64).sum(axis=1)
            right_padded = np.arange(ids.shape[1]) < lengths[:, None]
            if not (np.array_equal(right_padded, np.asarray(attention_mask) != 0) and lengths.min() > 0):
                raise ValueError("attention_mask pads elsewhere than on the right, or a row is empty")
        self._start(lengths)
        if not self.prefix_tokens:
            self._session.run_with_iobinding(self._binding(ids))
        for row, binding in enumerate(self._row_bindings):
            binding.bind_ortvalue_input("input_ids", _value(ids[row : row + 1, : lengths[row]].copy()))
            self._session.run_with_iobinding(binding)
        return self._logits[:, 0].copy()

    def decode(self, token_ids: Sequence[int] | Ids) -> Logits:
        """Appends one token to every row; logits [B, V] after it.

        Raises:
            ValueError: the context is full.
        """
        return self.step(token_ids).copy()

    def step(self, token_ids: Sequence[int] | Ids) -> Logits:
        """`decode` without the copy: the result is overwritten by the next call."""
        if self._lengths.max() >= self.context_tokens:
            raise ValueError(f"the context of {self.context_tokens} tokens is full; expected a free position")
        self._tokens[:, 0] = token_ids
        self._mask[self._rows, self._lengths] = 1
        self._lengths += 1
        self._session.run_with_iobinding(self._decode_binding)
        return self._logits[:, 0]

    def reset(self) -> None:
        """Forgets everything that was read after the prefix; the buffers stay."""
        self._start(np.zeros(self.batch_size, np.int64))

    def generate(self, prompt_ids: Sequence[int], n: int) -> list[int]:
        """`n` greedy tokens after a prompt, in every row of the batch the same; the first row is returned."""
        ids = np.tile(np.asarray(prompt_ids, np.int64), (self.batch_size, 1))
        tokens = [int(self.prefill(ids)[0].argmax())]
        while len(tokens) < n:
            tokens.append(int(self.step([tokens[-1]] * self.batch_size)[0].argmax()))
        return tokens[:n]

    def _start(self, lengths: Ids) -> None:
        """Each row holds the prefix and as many tokens of its own as `lengths` [B] says."""
        self._lengths[:] = self.prefix_tokens + lengths
        self._mask[:] = np.arange(self.context_tokens) < self._lengths[:, None]

    def _binding(self, ids: Ids, rows: slice = slice(None)) -> Any:
        """The buffers of some rows, and the token ids that these are given."""
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("input_ids", _value(ids))
        binding.bind_ortvalue_input("attention_mask", _value(self._mask[rows]))
        binding.bind_ortvalue_output("logits", _value(self._logits[rows]))
        for name, cache in self._cache.items():
            value = _value(cache[rows])
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)
        return binding


def _value(array: npt.NDArray[Any]) -> Any:
    """The array's own memory as a runtime value: nothing is copied, so writing to one writes to the other."""
    return ort.OrtValue.ortvalue_from_numpy(array)
