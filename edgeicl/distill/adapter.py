"""Training a few parameters of a model and leaving the rest as they are.

LoRA (Hu et al., 2021, arXiv 2106.09685) is peft's. BitFit (Ben Zaken et al., 2021, arXiv 2106.10199) has
nothing to insert: biases are trained, those of the norms too, and all else is frozen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

from edgeicl.errors import DataError
from edgeicl.models.model_folder import parameter_shapes

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

AdapterKind = Literal["none", "lora", "bitfit"]


def check_adapter(folder: Path, kind: AdapterKind, *, target_modules: Sequence[str] = ()) -> None:
    """DataError unless the model in `folder` has what would be trained; reads no weights."""
    names = parameter_shapes(folder)
    if kind == "bitfit" and not any(name.endswith(".bias") for name in names):
        raise DataError(
            f"{folder}: found no biases, which are all that BitFit trains",
            next_step="set distill.student.adapter: lora",
        )
    if kind == "lora":
        layers = {name.split(".")[-2] for name in names if name.endswith(".weight") and "." in name[:-7]}
        if unknown := sorted(set(target_modules) - layers):
            raise DataError(
                f"{folder}: found no layers {', '.join(unknown)} for LoRA; has {', '.join(sorted(layers))}",
                next_step="correct distill.student.lora.target_modules, or leave it out for all",
            )


@contextmanager
def adapted(
    model: PreTrainedModel,
    kind: AdapterKind,
    *,
    rank: int,
    alpha: int,
    target_modules: Sequence[str] = (),
    seed: int = 0,
) -> Iterator[None]:
    """Inside, only the adapter's parameters of `model` require gradients; after, it is a plain model again.

    A LoRA update starts at zero, so that entering changes nothing of what the model computes, and is added to
    its weight at the end. `seed` draws its first factor. After an error the model stays adapted.
    """
    if kind == "none":
        yield
        return
    if kind == "lora":
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel

        config = LoraConfig(
            r=rank,
            lora_alpha=alpha,
            target_modules=list(target_modules) or "all-linear",
            bias="none",
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            lora = LoraModel(model, config, "default")
    else:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.endswith(".bias"))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    log.info("%s trains %s of %s parameters", kind, f"{trained:,}", f"{model.num_parameters():,}")
    model.eval()
    yield
    if kind == "lora":
        lora.merge_and_unload()
    model.requires_grad_(True)
