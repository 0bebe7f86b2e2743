"""A causal language model in fp32 whose weights are nowhere in memory until a module computes with them.

Each module reads its weights before it runs and drops them after it (accelerate's offloading), so that a pass
holds those of one module: the price is that every pass reads them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import cpu_offload, init_empty_weights
from torch import Tensor

from edgeicl.models.anatomy import EMBEDDING
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.checkpoint import TIED_HEAD, Checkpoint
from edgeicl.models.model_folder import model_config

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# settings of how a model was stored or trained, which have no business in what it computes
_NOT_OF_THE_MODEL = ("torch_dtype", "dtype", "architectures", "transformers_version", "_name_or_path")


def load_streamed(folder: Path) -> PreTrainedModel:
    """The model in `folder`, of an architecture in the table, as its files have it.

    Raises:
        DataError: an architecture that isn't in the table; and, in a pass, weights that are missing.
    """
    anatomy = anatomy_of(model_config(folder))
    checkpoint = Checkpoint(folder, anatomy.prefix)

    def read(name: str) -> Tensor:
        is_table = name == TIED_HEAD and anatomy.tied
        return checkpoint.read(anatomy.group(EMBEDDING).weights[0] if is_table else name)

    return streamed_model(anatomy.config, read)


def streamed_model(config: Mapping[str, Any], read: Callable[[str], Tensor]) -> PreTrainedModel:
    """transformers' model for `config`, in evaluation mode; `read` gives a parameter's values by its name.

    A head that is tied to the embedding is read by its own name, `lm_head.weight`. A pass raises ValueError for
    values of another shape than the parameter's.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    known = {key: value for key, value in config.items() if key not in _NOT_OF_THE_MODEL}
    # parameters without memory; buffers, such as those of rotary positions, as they are
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**known), dtype=torch.float32)
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    cpu_offload(model, execution_device=torch.device("cpu"), state_dict=_Weights(names, read))
    streamed: PreTrainedModel = model.eval()
    return streamed


class _Weights(Mapping[str, Tensor]):
    """What accelerate takes for a state."""

    def __init__(self, names: list[str], read: Callable[[str], Tensor]) -> None:
        self._names = names
        self._read = read

    def __getitem__(self, name: str) -> Tensor:
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
