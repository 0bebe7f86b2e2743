"""Artifacts for CUDA, made on a computer that may have none: what is checked where, and what is told of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from edgeicl.emit.parity import AllLogits, ParityCase, compared, expected_logits
from edgeicl.errors import ParityError
from edgeicl.models.onnx_decoder import CACHE_TYPES
from edgeicl.specs.manifest import Deviation, ParityCheck
from edgeicl.specs.target import Target

CUDA = "CUDAExecutionProvider"


def cuda_available() -> bool:
    """Whether this onnxruntime can run graphs on a GPU."""
    return CUDA in ort.get_available_providers()


def provider_deviations(target: Target) -> list[Deviation]:
    """What is not done with the target's own provider."""
    if target.provider == "cpu":
        return []
    got, why = "cpu", f"this onnxruntime has no {CUDA}: the CPU's kernels ran the same graph in all checks"
    if cuda_available():
        got = "cuda for parity, cpu for the rest"
        why = "generation, accuracy and speed are checked and measured with the CPU's kernels"
    return [Deviation(what="provider", where=f"target {target.name}", asked=target.provider, got=got, why=why)]


def check_on_provider(
    model_path: Path,
    reference: AllLogits,
    case: ParityCase,
    *,
    provider: str,
    tolerance: float,
    head_tokens: Sequence[int] | None = None,
) -> tuple[ParityCheck, ...]:
    """Compares the artifact, run by one of onnxruntime's providers, with `reference`, as `check_parity` does.

    Rows are read one by one, and the cache grows by what the graph returns: no memory of a device is bound.

    Raises:
        ParityError: a difference above `tolerance` (a share of the largest logit), or a provider that can't
            run the graph.
    """
    providers = list(dict.fromkeys([provider, "CPUExecutionProvider"]))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(model_path), options, providers=providers)
    if session.get_providers()[0] != provider:
        raise ParityError(f"{provider} can't run {model_path}: onnxruntime took {session.get_providers()[0]}")
    found = np.concatenate([_logits(session, row, case.decoded_tokens) for row in case.rows], axis=1)
    name = f"{provider}, {case.name}"
    checks = compared(name, found, expected_logits(case, reference), tolerance, head_tokens)
    wrong = [check for check in checks if not check.max_abs_difference <= check.tolerance]
    if wrong:
        told = "; ".join(
            f"{check.name}: logits differ by {check.max_abs_difference:.3g}, expected at most "
            f"{check.tolerance:.3g}"
            for check in wrong
        )
        raise ParityError(f"{model_path} with {told}", next_step="compile for provider cpu, and report this")
    return tuple(checks)


def _logits(session: Any, row: Sequence[int], decoded_tokens: int) -> npt.NDArray[np.float32]:
    """[steps, 1, V] after the prompt and after each token that is decoded."""
    caches = [entry for entry in session.get_inputs() if entry.name.startswith("past_key_values.")]
    past = {
        entry.name: np.zeros((1, entry.shape[1], 0, entry.shape[3]), CACHE_TYPES[entry.type])
        for entry in caches
    }
    outputs = ["logits", *(name.replace("past_key_values", "present") for name in past)]
    steps, read = [], 0
    first = len(row) - decoded_tokens
    for end in range(first, len(row) + 1):
        feeds = {"input_ids": [list(row[read:end])], "attention_mask": [[1] * end]}
        ids = {name: np.array(values, np.int64) for name, values in feeds.items()}
        logits, *present = session.run(outputs, ids | past)
        past, read = dict(zip(past, present, strict=True)), end
        steps.append(logits[:, -1])
    return np.stack(steps)
