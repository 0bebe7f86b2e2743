"""Runs an artifact with numpy and onnxruntime alone: this file is copied to devices beside the bench runner.

Everything that a decode step reads or writes is allocated and bound once: the token ids, a mask as wide as
the context, the logits, and one key/value buffer per layer that is input and output at the same time. A step
changes the token, sets one mask column per row, and runs. The graph takes lengths from the sum of the
mask, not from its width, which is what makes the constant width possible.

Notation: B rows of the batch, T prompt tokens, V vocabulary, C context tokens.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

Ids = npt.NDArray[np.int64]
Logits = npt.NDArray[np.float32]


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
        started = time.perf_counter()
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
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
        self._cache = [
            (entry.name, _value(np.zeros((batch_size, heads, context_tokens, head_size), np.float32)))
            for entry in caches
        ]
        self._mask = np.zeros((batch_size, context_tokens), np.int64)
        self._tokens = np.zeros((batch_size, 1), np.int64)
        self._logits = np.zeros((batch_size, 1, self.vocabulary), np.float32)
        self._mask_value, self._logits_value = _value(self._mask), _value(self._logits)
        self._lengths = np.zeros(batch_size, np.int64)
        self._rows = np.arange(batch_size)
        self._tokens_value = _value(self._tokens)
        self._decode_binding = self._binding(self._tokens_value)

    def prefill(self, input_ids: Ids, attention_mask: Ids | None = None) -> Logits:
        """Starts anew with prompts [B, T], padded on the right; logits [B, V] after each row's last token.

        Raises:
            ValueError: wrong batch size, more tokens than the context holds, or padding elsewhere.
        """
        ids = np.ascontiguousarray(input_ids, dtype=np.int64)
        if ids.ndim != 2 or ids.shape[0] != self.batch_size or not 0 < ids.shape[1] <= self.context_tokens:
            raise ValueError(
                f"prompt of shape {list(ids.shape)}; expected [{self.batch_size}, 1..{self.context_tokens}]"
            )
        lengths = np.full(self.batch_size, ids.shape[1], np.int64)
        if attention_mask is not None:
            lengths = np.asarray(attention_mask, dtype=np.int64).sum(axis=1)
            right_padded = np.arange(ids.shape[1]) < lengths[:, None]
            if not (np.array_equal(right_padded, np.asarray(attention_mask) != 0) and lengths.min() > 0):
                raise ValueError("attention_mask pads elsewhere than on the right, or a row is empty")
        self._lengths[:] = lengths
        self._mask[:] = np.arange(self.context_tokens) < lengths[:, None]
        ids_value = _value(ids)
        self._session.run_with_iobinding(self._binding(ids_value))
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
        """Forgets everything that was read; the buffers stay."""
        self._mask[:] = 0
        self._lengths[:] = 0

    def generate(self, prompt_ids: Sequence[int], n: int) -> list[int]:
        """`n` greedy tokens after a prompt, in every row of the batch the same; the first row is returned."""
        ids = np.tile(np.asarray(prompt_ids, np.int64), (self.batch_size, 1))
        tokens = [int(self.prefill(ids)[0].argmax())]
        while len(tokens) < n:
            tokens.append(int(self.step([tokens[-1]] * self.batch_size)[0].argmax()))
        return tokens[:n]

    def _binding(self, ids: Any) -> Any:
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("input_ids", ids)
        binding.bind_ortvalue_input("attention_mask", self._mask_value)
        binding.bind_ortvalue_output("logits", self._logits_value)
        for name, value in self._cache:
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)
        return binding


def _value(array: npt.NDArray[Any]) -> Any:
    """The array's own memory as a runtime value: nothing is copied, so writing to one writes to the other."""
    return ort.OrtValue.ortvalue_from_numpy(array)
