"""Runs an artifact with every buffer on one device, a GPU: token ids, mask, keys and values, logits.

Each is allocated and bound once; a step writes one token and the mask into them, and copies the logits back,
which an app needs here to choose a token by. That copy waits for the device, so a clock that is read after a
step counts all of its work. With the device `cpu` the same code runs without a GPU. Needs numpy and onnxruntime
alone.

CUDA graphs are not used: attention takes the count of positions from the host's memory, computed from the mask
in each step, and a captured graph would repeat that of the step in which it was captured.

Notation: T prompt tokens, V vocabulary, C context tokens, P tokens of the prefix. One row, no batch.
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

_PROVIDERS = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


class DeviceDecoder:
    """One session and one key/value cache, both on `device`: `cuda:NUMBER`, or `cpu`."""

    def __init__(self, model_path: Path, *, threads: int, context_tokens: int, device: str) -> None:
        """Loads `model_path`.

        Raises:
            ValueError: it has no key/value cache to bind.
            RuntimeError: onnxruntime took another provider than the device's.
        """
        kind, _, number = device.partition(":")
        self._device = (kind, int(number or 0))
        provider = _PROVIDERS[kind]
        if kind == "cuda" and hasattr(ort, "preload_dlls"):
            ort.preload_dlls()  # those of NVIDIA's own wheels
        started = time.perf_counter()
        options = {"device_id": str(self._device[1])} if kind == "cuda" else {}
        self._session = open_session(model_path, threads=threads, providers=[(provider, options)])
        self.load_ms = (time.perf_counter() - started) * 1e3
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        if self.providers[0] != provider:
            raise RuntimeError(f"{device} can't run {model_path}: onnxruntime fell back to {self.providers[0]}")
        self.threads: int = self._session.get_session_options().intra_op_num_threads
        self.context_tokens = context_tokens
        caches = [entry for entry in self._session.get_inputs() if entry.name.startswith("past_key_values.")]
        if not caches:
            raise ValueError(
                f"{model_path} has no input past_key_values.0.key; expected a decoder with a cache"
            )
        heads, head_size = caches[0].shape[1], caches[0].shape[3]
        self.vocabulary: int = self._session.get_outputs()[0].shape[-1]
        self._cache_shape = (1, heads, context_tokens, head_size)
        self._cache_types = {entry.name: CACHE_TYPES[entry.type] for entry in caches}
        self._cache = {
            name: self._there(np.zeros(self._cache_shape, number_type))
            for name, number_type in self._cache_types.items()
        }
        self._host_mask = np.zeros((1, context_tokens), np.int64)
        self._mask = self._there(self._host_mask)
        self._token = self._there(np.zeros((1, 1), np.int64))
        self._logits = self._there(np.zeros((1, 1, self.vocabulary), np.float32))
        self._step = self._binding(self._token)
        self._length = 0
        self.prefix_tokens = 0
        self.told = (
            f"ids, mask, cache and logits are bound once, on {device}; a token's time has the copy of its "
            "logits to the host",
            "no CUDA graph: attention takes the count of positions from the host, which capture freezes",
            "memory is the host's; the GPU's is not counted",
        )

    def load_prefix(self, rows: Mapping[str, npt.NDArray[Any]]) -> None:
        """Puts keys and values [heads, P, head_size], by cache input, before all that is read from now on.

        Raises:
            ValueError: rows that don't fit this graph, or that leave no room in the context.
        """
        _, heads, _, head_size = self._cache_shape
        shapes = {name: values.shape for name, values in rows.items()}
        counts = {shape[1] for shape in shapes.values() if len(shape) == 3}
        if len(counts) != 1 or shapes != dict.fromkeys(self._cache, (heads, min(counts), head_size)):
            raise ValueError(
                f"a prefix of {len(rows)} arrays of the shapes {sorted(set(shapes.values()))}; expected "
                f"[{heads}, P, {head_size}] for each of the {len(self._cache)} cache inputs"
            )
        (count,) = counts
        if not 0 < count < self.context_tokens:
            raise ValueError(f"a prefix of {count} tokens; expected 1..{self.context_tokens - 1}")
        for name, values in rows.items():
            number_type = self._cache_types[name]
            if (number_type == np.int8) != (values.dtype == np.int8):
                raise ValueError(f"a prefix of {values.dtype} for a cache of {np.dtype(number_type)}")
            whole = np.zeros(self._cache_shape, number_type)
            whole[0, :, :count] = values
            self._cache[name].update_inplace(whole)
        self.prefix_tokens = count
        self.reset()

    def stand_at(self, tokens: int) -> None:
        """Puts so many positions of zeros before all that is read from now on, or nothing: to time depths."""
        self.prefix_tokens = 0
        if tokens:
            _, heads, _, head_size = self._cache_shape
            self.load_prefix(
                {
                    name: np.zeros((heads, tokens, head_size), number_type)
                    for name, number_type in self._cache_types.items()
                }
            )
        self.reset()

    def prefill(self, input_ids: Ids) -> Logits:
        """Starts anew with a prompt [1, T]; logits [1, V] after its last token.

        Behind a prefix, if one is loaded.

        Raises:
            ValueError: another shape, or more tokens than the context holds.
        """
        ids = np.ascontiguousarray(input_ids, dtype=np.int64)
        room = self.context_tokens - self.prefix_tokens
        if ids.ndim != 2 or ids.shape[0] != 1 or not 0 < ids.shape[1] <= room:
            raise ValueError(f"prompt of shape {list(ids.shape)}; expected [1, 1..{room}]")
        self._stand(self.prefix_tokens + ids.shape[1])
        return self._run(self._binding(self._there(ids)))

    def decode(self, token_ids: Sequence[int] | Ids) -> Logits:
        """Appends one token; logits [1, V] after it. ValueError if the context is full."""
        if self._length >= self.context_tokens:
            raise ValueError(f"the context of {self.context_tokens} tokens is full; expected a free position")
        self._stand(self._length + 1)
        self._token.update_inplace(np.asarray(token_ids, np.int64).reshape(1, 1))
        return self._run(self._step)

    step = decode

    def reset(self) -> None:
        """Forgets everything that was read after the prefix; the buffers stay."""
        self._stand(self.prefix_tokens)

    def _stand(self, length: int) -> None:
        self._length = length
        self._host_mask = (np.arange(self.context_tokens) < length).astype(np.int64)[None]
        self._mask.update_inplace(self._host_mask)

    def _run(self, binding: Any) -> Logits:
        """Logits [1, V], here, when the device has done all that was asked of it."""
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        logits: Logits = self._logits.numpy()[:, 0].copy()
        return logits

    def _there(self, array: npt.NDArray[Any]) -> Any:
        """The array in the device's memory."""
        return ort.OrtValue.ortvalue_from_numpy(array, *self._device)

    def _binding(self, ids: Any) -> Any:
        binding = self._session.io_binding()
        binding.bind_ortvalue_input("input_ids", ids)
        binding.bind_ortvalue_input("attention_mask", self._mask)
        binding.bind_ortvalue_output("logits", self._logits)
        for name, value in self._cache.items():
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)
        return binding
