"""The trainer's options: whether they work here, and what they become.

Mixed precision, the device and the trackers are accelerate's; the 8-bit optimizer is bitsandbytes'
(Dettmers et al., 2021, arXiv 2110.02861).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn
from torch.utils.checkpoint import checkpoint

from edgeicl.errors import EdgeiclError

OptimizerName = Literal["adamw", "adamw_8bit"]
Precision = Literal["no", "bf16", "fp16"]


def check_options(
    *, optimizer: OptimizerName, mixed_precision: Precision, tracker: str, device: torch.device
) -> None:
    """EdgeiclError for an option that `device`, or what is installed, can't do."""
    if optimizer == "adamw_8bit" and device.type != "cuda":
        raise EdgeiclError(
            f"training.optimizer adamw_8bit needs CUDA (bitsandbytes); found the device {device}",
            next_step="set distill.training.optimizer: adamw, or run on a machine with a CUDA device",
        )
    if mixed_precision == "fp16" and device.type != "cuda":
        raise EdgeiclError(
            f"training.mixed_precision fp16 needs CUDA; found the device {device}",
            next_step="set distill.training.mixed_precision: bf16 or no",
        )
    if mixed_precision == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise EdgeiclError(
            f"training.mixed_precision bf16: {torch.cuda.get_device_name(device)} has no such arithmetic",
            next_step="set distill.training.mixed_precision: fp16 or no",
        )
    installed = sorted(map(str, get_available_trackers()))
    if tracker not in ("none", *installed):
        raise EdgeiclError(
            f"training.tracker {tracker} is not installed; found {', '.join(installed) or 'none'}",
            next_step=f"pip install {tracker.replace('_', '-')}, or set distill.training.tracker: none",
        )


def new_accelerator(*, mixed_precision: Precision, tracker: str, log_folder: Path) -> Accelerator:
    """accelerate's view of devices and processes, for one training."""
    # Its state is one for the whole process and keeps the precision of the first training.
    AcceleratorState._reset_state()
    return Accelerator(
        mixed_precision=mixed_precision,
        log_with=None if tracker == "none" else tracker,
        project_dir=log_folder,
        # No model here changes its buffers, and processes may call theirs unlike often in a step.
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False)],
    )


def new_optimizer(
    name: OptimizerName, parameters: Sequence[nn.Parameter], *, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW over `parameters`, in fp32 or with a state of 8 bits."""
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
    from bitsandbytes.optim import AdamW8bit

    optimizer: torch.optim.Optimizer = AdamW8bit(parameters, lr=learning_rate, weight_decay=weight_decay)
    return optimizer


@contextmanager
def tracked(
    accelerator: Accelerator, tracker: str, name: str
) -> Iterator[Callable[[Mapping[str, float], int], None]]:
    """Yields what logs the figures of a step; nothing else is ever logged, no text and no settings."""
    if tracker == "none":
        yield lambda figures, step: None
        return
    accelerator.init_trackers(re.sub(r"[^A-Za-z0-9_.]+", "-", name))
    try:
        yield lambda figures, step: accelerator.log(dict(figures), step=step)
    finally:
        # Not end_training(), which also ends the group of processes.
        for one in accelerator.trackers:
            one.finish()


@contextmanager
def activations_recomputed(module: nn.Module, *, wanted: bool) -> Iterator[None]:
    """Decoder layers of `module` forget their activations and compute them again in the backward pass.

    transformers' own switch works in training mode only, which would also turn dropout on.

    Raises:
        EdgeiclError: `module` has no layers that transformers marks as fit for it.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [layer for layer in module.modules() if isinstance(layer, GradientCheckpointingLayer)] * wanted
    if wanted and not layers:
        raise EdgeiclError(
            f"training.gradient_checkpointing: {type(module).__name__} has no layers that support it",
            next_step="set distill.training.gradient_checkpointing: false",
        )
    for layer in layers:
        layer.forward = _recomputed(layer.forward)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _recomputed(forward: Callable[..., Any]) -> Callable[..., Any]:
    def recomputed(*args: Any, **kwargs: Any) -> Any:
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    return recomputed
