"""Keys and values of what stands before every query, from the artifact's own quantized weights.

They are computed by the artifact's graph with exact activations: once, so that speed doesn't matter, and
without the error that int8 activations would leave in every answer.

Notation: P positions of a set, H hidden size, N layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edgeicl.emit.graph_variants import EMBEDDED, with_exact_activations, with_vectors_for_tokens
from edgeicl.errors import DataError
from edgeicl.models.onnx_decoder import CACHE_TYPES
from edgeicl.models.prefix_file import Rows, write_prefix
from edgeicl.specs.manifest import MODEL_FILE, PREFIX_FILE, Deviation, PrefixUse

Array = npt.NDArray[Any]


def write_prefix_file(folder: Path, sets: Sequence[Array], *, bits: Literal[16, 32]) -> list[Rows]:
    """Writes `prefix.safetensors` beside the graph in `folder`; the rows of each set as they were computed.

    Those are of fp32, or the codes of an 8-bit cache, which the file holds as they are.

    Args:
        sets: Token ids [P] or vectors [P, H] of each set, as `specs.prefix` describes them.
        bits: Of floating-point numbers in the file.

    Raises:
        DataError: a number that isn't finite, or that 16 bits can't hold.
    """
    computed = [prefix_rows(folder, values) for values in sets]
    ids = [values if values.ndim == 1 else None for values in sets]
    if all(values.dtype == np.int8 for values in computed[0].values()):
        write_prefix(folder / PREFIX_FILE, computed, ids)
        return computed
    dtype = np.dtype(f"float{bits}")
    largest = max(float(np.abs(values).max()) for rows in computed for values in rows.values())
    highest = float(np.finfo(dtype).max)
    if not largest <= highest:
        raise DataError(
            f"a key or value of what stands before a query is {largest:g}; {bits} bits end at {highest:g}",
            next_step="set emit.prefix_bits: 32" if bits == 16 else "look for what is not finite in the model",
        )
    stored = [{name: values.astype(dtype) for name, values in rows.items()} for rows in computed]
    write_prefix(folder / PREFIX_FILE, stored, ids)
    return computed


def prefix_use(sets: Sequence[Array], *, longest_query_tokens: int) -> PrefixUse:
    """What task.json says of a prefix."""
    return PrefixUse(
        kind="tokens" if sets[0].ndim == 1 else "vectors",
        tokens=tuple(len(values) for values in sets),
        longest_query_tokens=longest_query_tokens,
    )


def prefix_rows(folder: Path, values: Array) -> Rows:
    """Keys and values [heads, P, head_size] by cache input, of token ids [P] or vectors [P, H]."""
    model = with_exact_activations((folder / MODEL_FILE).read_bytes())
    feeds: dict[str, Array] = {"input_ids": np.zeros((1, len(values)), np.int64)}
    if values.ndim == 1:
        feeds["input_ids"] = values[None].astype(np.int64)
    else:
        model = with_vectors_for_tokens(model)
        feeds[EMBEDDED] = values[None].astype(np.float32)
    feeds["attention_mask"] = np.ones((1, len(values)), np.int64)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    caches = [entry for entry in session.get_inputs() if entry.name.startswith("past_key_values.")]
    for entry in caches:
        feeds[entry.name] = np.zeros((1, entry.shape[1], 0, entry.shape[3]), CACHE_TYPES[entry.type])
    names = [entry.name for entry in caches]
    present = session.run([name.replace("past_key_values", "present") for name in names], feeds)
    return {name: values[0] for name, values in zip(names, present, strict=True)}


def prefix_deviations(sets: Sequence[Array]) -> list[Deviation]:
    """What onnxruntime-genai, which is handed tokens and nothing else, can't do with a prefix."""
    if sets[0].ndim == 1:
        return []
    return [
        Deviation(
            what="onnxruntime-genai",
            where=PREFIX_FILE,
            asked="answers behind the prefix",
            got="the model alone",
            why="it takes tokens only, and these keys and values are of vectors; use onnxruntime",
        )
    ]
