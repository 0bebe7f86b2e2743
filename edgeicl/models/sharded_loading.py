"""A model of which every process holds a part, for teachers that don't fit where one process runs.

Its layers' weights are sharded over the processes (FSDP2) and gathered layer by layer as the model runs, so
that all processes must run it together; embeddings, head and the last norm are whole in each. Nothing but a
process's own part is ever kept while loading.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgeicl.errors import DataError
from edgeicl.models.checkpoint import Checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_sharded(folder: Path, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """The causal language model in `folder`, sharded over all processes of the launch; every one calls this.

    Raises:
        DataError: an architecture whose layers are not known, or weights that are missing or don't fit.
    """
    from accelerate import init_empty_weights
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(folder), trust_remote_code=False, local_files_only=True)
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    model.tie_weights()  # so that a head that is the embedding is not looked for
    mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
    layers = _layers(model)
    if not layers:
        raise DataError(
            f"{folder}: {type(model).__name__} does not say what its layers are, so they can't be sharded",
            next_step="launch without FSDP",
        )
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    weights = Checkpoint(folder, f"{model.base_model_prefix}.")
    state: dict[str, Any] = {}
    for name, parameter in model.named_parameters():
        state[name] = _part(weights.read(name), parameter, device)
    model.load_state_dict(state, strict=False, assign=True)
    model.tie_weights()
    for buffer_name, buffer in list(model.named_buffers()):
        owner, _, name = buffer_name.rpartition(".")
        model.get_submodule(owner)._buffers[name] = buffer.to(device)
    model.requires_grad_(False)
    loaded: PreTrainedModel = model.eval()
    return loaded


def _layers(model: PreTrainedModel) -> list[nn.Module]:
    """What the architecture names as never to be split: its decoder layers."""
    named = set(model._no_split_modules or ())
    return [module for module in model.modules() if type(module).__name__ in named]


def _part(whole: Tensor, parameter: nn.Parameter, device: torch.device) -> nn.Parameter:
    """Of a weight as it is stored, what this process holds of `parameter`."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    cast = whole.to(parameter.dtype)
    if not isinstance(parameter, DTensor):
        return nn.Parameter(cast.to(device), requires_grad=False)
    # Each process cuts out its own part; nothing is sent.
    cut = distribute_tensor(cast, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return nn.Parameter(cut, requires_grad=False)
