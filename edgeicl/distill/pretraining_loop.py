"""The loop that trains a new model, step by step, from batches that are functions of the step's number."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel

from edgeicl.checkpoint import newest_checkpoint, save_checkpoint
from edgeicl.errors import EdgeiclError
from edgeicl.progress import track
from edgeicl.specs.pretraining import TrainingPhase

log = logging.getLogger(__name__)


def check_one_process() -> None:
    """EdgeiclError if more than one process was launched; so small a model is trained in one."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise EdgeiclError(
            f"pretrain runs in one process; found WORLD_SIZE {os.environ['WORLD_SIZE']}",
            next_step="start it without a launcher",
        )


def pretraining_loop(
    model: PreTrainedModel,
    loss: Callable[[PreTrainedModel, int], Tensor],
    *,
    phases: Sequence[TrainingPhase],
    weight_decay: float,
    max_gradient_norm: float,
    mixed_precision: str,
    checkpoint: Path,
    checkpoint_every_steps: int,
    recipe: str,
    description: str,
) -> PreTrainedModel:
    """Trains `model`, through all `phases`; it comes back in evaluation mode.

    Args:
        loss: From the model and a step's number to its loss, a scalar.
        checkpoint: Folder of the checkpoint that a killed run goes on from.
        recipe: Digest of all that decides the training.
    """
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=mixed_precision)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.98), weight_decay=weight_decay)
    model, optimizer = accelerator.prepare(model, optimizer)
    rates, start = learning_rates(phases), 0
    if found := newest_checkpoint(checkpoint, recipe=recipe):
        accelerator.load_state(str(found))
        start = int(found.name)
        log.info("going on at step %d", start)
    with track(description, len(rates), already_done=start) as advance:
        for step in range(start, len(rates)):
            for group in optimizer.param_groups:
                group["lr"] = rates[step]
            with accelerator.autocast():
                value = loss(model, step)
            accelerator.backward(value)
            accelerator.clip_grad_norm_(model.parameters(), max_gradient_norm)
            optimizer.step()
            optimizer.zero_grad()
            advance(1)
            if (step + 1) % checkpoint_every_steps == 0:
                save_checkpoint(
                    checkpoint, step + 1, lambda folder: accelerator.save_state(str(folder)), recipe=recipe
                )
                log.info("step %d: training loss %.3f", step + 1, value.item())
    trained: PreTrainedModel = accelerator.unwrap_model(model, keep_fp32_wrapper=False).eval()
    return trained


def learning_rates(phases: Sequence[TrainingPhase]) -> list[float]:
    """Of every step: in each phase a linear warm-up, then a cosine down to the phase's lowest."""
    return [_learning_rate(phase, step) for phase in phases for step in range(phase.steps)]


def _learning_rate(phase: TrainingPhase, step: int) -> float:
    warmup = min(1.0, (step + 1) / phase.warmup_steps)
    lowest = phase.final_learning_rate_ratio
    cosine = 0.5 * (1.0 + math.cos(math.pi * step / phase.steps))
    return phase.learning_rate * warmup * (lowest + (1.0 - lowest) * cosine)
