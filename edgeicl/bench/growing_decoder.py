"""Runs a decoder that other exporters wrote: keys and values grow by one position a step, without a buffer.

The interface is OnnxDecoder's, so that the runner measures both with the same loop. Keys and values stay
where the runtime put them and are handed back by reference, which is the least work such a graph allows.
Numpy and onnxruntime alone.

Notation: T tokens of the step, V vocabulary. One sequence at a time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

try:
    from edgeicl.models.onnx_decoder import CACHE_TYPES
except ImportError:  # On a device the files lie side by side.
    from onnx_decoder import CACHE_TYPES  # type: ignore[import-not-found, no-redef]

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]


class GrowingDecoder:
    """One session of a graph with inputs `past_key_values.*` and outputs `present.*`, in the same order."""

    def __init__(self, model_path: Path, *, threads: int, context_tokens: int) -> None:
        """Loads `model_path`. ValueError if it has no key/value inputs."""
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        started = time.perf_counter()
        self._session = ort.InferenceSession(str(model_path), options, providers=["CPUExecutionProvider"])
        self.load_ms = (time.perf_counter() - started) * 1e3
        self.threads: int = self._session.get_session_options().intra_op_num_threads
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        self.context_tokens = context_tokens
        names = [entry.name for entry in self._session.get_inputs()]
        caches = [entry for entry in self._session.get_inputs() if entry.name.startswith("past_key_values.")]
        if not caches:
            raise ValueError(f"{model_path} has no input past_key_values.*; expected a decoder with a cache")
        self._cache_names = [entry.name for entry in caches]
        self._wants_positions = "position_ids" in names
        self._outputs = [entry.name for entry in self._session.get_outputs()]
        heads, head_size = caches[0].shape[1], caches[0].shape[3]
        empty = np.zeros((1, heads, 0, head_size), CACHE_TYPES[caches[0].type])
        self._empty = ort.OrtValue.ortvalue_from_numpy(empty)
        self.reset()

    def prefill(self, input_ids: Ids, attention_mask: Ids | None = None) -> Logits:
        """Starts anew with a prompt [1, T]; logits [1, V] after its last token."""
        if attention_mask is not None:
            raise ValueError("one sequence needs no attention_mask")
        self.reset()
        return self._run(np.ascontiguousarray(input_ids, dtype=np.int64))

    def decode(self, token_ids: Sequence[int] | Ids) -> Logits:
        """Appends one token; logits [1, V] after it."""
        return self._run(np.array([[int(token_ids[0])]], dtype=np.int64))

    def reset(self) -> None:
        """Forgets everything that was read."""
        self._past: list[Any] = [self._empty] * len(self._cache_names)
        self._length = 0

    def _run(self, ids: Ids) -> Logits:
        binding = self._session.io_binding()
        total = self._length + ids.shape[1]
        if total > self.context_tokens:
            raise ValueError(f"the context of {self.context_tokens} tokens is full; expected a free position")
        binding.bind_cpu_input("input_ids", ids)
        binding.bind_cpu_input("attention_mask", np.ones((1, total), np.int64))
        if self._wants_positions:
            binding.bind_cpu_input("position_ids", np.arange(self._length, total, dtype=np.int64)[None])
        for name, value in zip(self._cache_names, self._past, strict=True):
            binding.bind_ortvalue_input(name, value)
        for name in self._outputs:
            binding.bind_output(name, "cpu")
        self._session.run_with_iobinding(binding)
        logits, *self._past = binding.get_outputs()
        self._length = total
        last: Logits = logits.numpy()[:, -1]
        return last
