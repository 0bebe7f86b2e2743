"""The training loop, on one process or on several under `accelerate launch`.

No dropout: the model stays in evaluation mode, so that the result does not depend on how many processes
share a batch. With several, each takes every n-th example of each batch and gradients are averaged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeicl.checkpoint import newest_checkpoint, save_checkpoint
from edgeicl.distill.training_options import (
    OptimizerName,
    Precision,
    activations_recomputed,
    check_options,
    new_accelerator,
    new_optimizer,
    tracked,
)
from edgeicl.distill.training_plan import learning_rate_at
from edgeicl.models.freed_memory import return_freed_tensors
from edgeicl.progress import track

log = logging.getLogger(__name__)

_STATE = "training.pt"


@dataclass(frozen=True)
class TrainingSettings:
    """How a model is trained; see `specs.distillation.Training`."""

    learning_rate: float
    epochs: int
    batch_size: int
    warmup_ratio: float = 0.1
    weight_decay: float = 0.0
    max_gradient_norm: float = 1.0
    checkpoint_every_steps: int = 50
    optimizer: OptimizerName = "adamw"
    gradient_checkpointing: bool = False
    mixed_precision: Precision = "no"
    tracker: str = "none"
    log_folder: str = "logs"


Loss = Callable[[nn.Module, NDArray[np.int64], int], Tensor]
"""From the module as it is to be called, indices of examples and the step's number to a loss per example."""


def train(
    module: nn.Module,
    loss: Loss,
    *,
    batches: Sequence[NDArray[np.int64]],
    settings: TrainingSettings,
    checkpoint_folder: Path | None = None,
    description: str = "training",
) -> list[float]:
    """Trains the parameters of `module` that require gradients, in place; returns the loss of every step.

    Args:
        loss: Is called with this process's share of the step's examples. It must call the module that it is
            given, which is `module` or, on several processes, a wrapper of it that averages gradients.
        batches: The examples of each step; see `training_plan.batch_order`.
        checkpoint_folder: Where the trained parameters and the optimizer's state are kept every
            `checkpoint_every_steps` steps. A run that finds it goes on from there and ends, on a CPU, with the
            same bits as one that was never stopped; a damaged one is told and not used.

    Raises:
        EdgeiclError: an option of `settings` that this device, or what is installed, can't do.
    """
    check_options(
        optimizer=settings.optimizer,
        mixed_precision=settings.mixed_precision,
        tracker=settings.tracker,
        device=PartialState().device,
    )
    accelerator = new_accelerator(
        mixed_precision=settings.mixed_precision,
        tracker=settings.tracker,
        log_folder=Path(settings.log_folder),
    )
    if accelerator.device.type == "cpu":
        return_freed_tensors()
    module.eval()
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = new_optimizer(
        settings.optimizer,
        parameters,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    losses = _restore(checkpoint_folder, module, optimizer, accelerator) if checkpoint_folder else []
    accelerator.wait_for_everyone()
    wrapped = accelerator.prepare_model(module)
    prepared = accelerator.prepare_optimizer(optimizer)
    rank, world = accelerator.process_index, accelerator.num_processes

    with (
        activations_recomputed(module, wanted=settings.gradient_checkpointing),
        tracked(accelerator, settings.tracker, description) as note,
        track(description, len(batches), already_done=len(losses)) as advance,
    ):
        for step in range(len(losses), len(batches)):
            batch = batches[step]
            # A process without a share still takes part, with an example of weight 0.
            share = batch[rank::world] if len(batch) > rank else batch[:1]
            weight = world / len(batch) if len(batch) > rank else 0.0
            value = loss(wrapped, share, step).sum() * weight
            accelerator.backward(value)
            accelerator.clip_grad_norm_(parameters, settings.max_gradient_norm)
            rate = learning_rate_at(
                step, steps=len(batches), peak=settings.learning_rate, warmup_ratio=settings.warmup_ratio
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            prepared.step()
            prepared.zero_grad()
            mean = accelerator.reduce(value.detach(), "mean") if world > 1 else value.detach()
            losses.append(mean.item())
            note({"loss": losses[-1], "learning_rate": rate}, step)
            advance(1)
            done = step + 1
            due = done % settings.checkpoint_every_steps == 0 and done < len(batches)
            if checkpoint_folder and due and accelerator.is_main_process:
                _save(checkpoint_folder, module, optimizer, accelerator, losses)
    # Else whoever calls the module next would still compute in mixed precision.
    accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
    accelerator.wait_for_everyone()
    return losses


def _save(
    folder: Path,
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    losses: list[float],
) -> None:
    """Trained parameters only: the others are where the module came from."""
    state = {
        "parameters": _trained(module),
        "optimizer": optimizer.state_dict(),
        "scaler": accelerator.scaler and accelerator.scaler.state_dict(),
        "losses": losses,
    }
    save_checkpoint(folder, len(losses), lambda beside: torch.save(state, beside / _STATE))


def _restore(
    folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer, accelerator: Accelerator
) -> list[float]:
    """The losses so far; empty where there is no checkpoint."""
    checkpoint = newest_checkpoint(folder)
    if checkpoint is None:
        return []
    state = torch.load(checkpoint / _STATE, map_location="cpu", weights_only=True)
    with torch.no_grad():
        for name, parameter in _trained(module).items():
            parameter.copy_(state["parameters"][name])
    optimizer.load_state_dict(state["optimizer"])
    if accelerator.scaler:
        accelerator.scaler.load_state_dict(state["scaler"])
    losses: list[float] = state["losses"]
    log.info("training goes on from step %d (%s)", len(losses), checkpoint)
    return losses


def _trained(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
