"""The hypernetwork of MEND: demonstrations in, vectors out (arXiv 2403.06914, section 3).

A decoder reads a demonstration set and, behind it, learned placeholders; its last hidden states at the
placeholders are the vectors that stand for the set before a language model. A projection is there only where
the two models differ in width, as in the paper.

Notation: B demonstration sets, l vectors, W width of the hypernetwork, H width of the language model's token
embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgeicl.errors import DataError
from edgeicl.models.loading import load_model, save_model
from edgeicl.numerics.padding import right_padded

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PARTS = "vectors.safetensors"
"""Placeholders and projection, beside the decoder in the hub's layout."""

_PLACEHOLDER_STD = 0.02


class Hypernetwork(nn.Module):
    """A decoder, l placeholders [l, W], and a projection from W to H where these differ."""

    def __init__(self, model: PreTrainedModel, placeholders: Tensor, projection: nn.Linear | None) -> None:
        super().__init__()
        self.model = model
        self.placeholders = nn.Parameter(placeholders)
        self.projection = projection
        head = model.get_output_embeddings()
        if head.weight is not model.get_input_embeddings().weight:
            head.requires_grad_(False)  # nothing reads it

    @property
    def vectors(self) -> int:
        """l."""
        return len(self.placeholders)

    def forward(self, contexts: Sequence[Sequence[int]]) -> Tensor:
        """Vectors [B, l, H] for the token ids of B demonstration sets, each with its leading tokens."""
        placeholders = self.placeholders.to(self.model.dtype)
        slots = [0] * self.vectors
        ids, lengths = right_padded([[*context, *slots] for context in contexts])
        device = placeholders.device
        # What is at the right of a row's placeholders is never seen by them: no mask is needed.
        rows = torch.arange(len(ids), device=device)[:, None]
        places = torch.from_numpy(lengths).to(device)[:, None] + torch.arange(-self.vectors, 0, device=device)
        embeddings = self.model.get_input_embeddings()(torch.from_numpy(ids).to(device))
        embeddings = embeddings.index_put((rows, places), placeholders.expand(len(ids), -1, -1))
        hidden: Tensor = self.model.base_model(inputs_embeds=embeddings, use_cache=False).last_hidden_state
        read = hidden[rows, places]
        return read if self.projection is None else torch.tanh(self.projection(read))


def new_hypernetwork(
    model: PreTrainedModel, *, vectors: int, width: int, start: Literal["normal", "vocabulary"], seed: int
) -> Hypernetwork:
    """An untrained one around `model`.

    Args:
        width: H.
        start: Placeholders from N(0, 0.02), or the embeddings of random tokens of the vocabulary.
    """
    generator = torch.Generator().manual_seed(seed)
    table = model.get_input_embeddings().weight.detach()
    if start == "vocabulary":
        tokens = torch.randint(len(table), (vectors,), generator=generator)
        placeholders = table[tokens.to(table.device)].clone()
    else:
        drawn = torch.randn(vectors, table.shape[1], generator=generator) * _PLACEHOLDER_STD
        placeholders = drawn.to(table.device)
    # Of the last hidden states; OPT-350M projects them back to the width of its embeddings.
    ours = model.get_output_embeddings().weight.shape[1]
    projection = None
    if ours != width:
        projection = nn.Linear(ours, width, device=table.device)
        with torch.no_grad():  # from the generator, so that the seed decides all
            bound = ours**-0.5
            for parameter in projection.parameters():
                drawn = torch.rand(parameter.shape, generator=generator)
                parameter.copy_((2 * drawn - 1) * bound)
    return Hypernetwork(model, placeholders, projection)


def save_hypernetwork(hypernetwork: Hypernetwork, source_folder: Path, destination: Path) -> None:
    """Writes the decoder in the hub's layout, with the tokenizer of `source_folder`, and the other parts."""
    save_model(hypernetwork.model, source_folder, destination)
    parts = {"placeholders": hypernetwork.placeholders.detach()}
    if hypernetwork.projection is not None:
        parts |= {f"projection.{name}": value for name, value in hypernetwork.projection.state_dict().items()}
    save_file({name: value.cpu().contiguous() for name, value in parts.items()}, destination / PARTS)


def load_hypernetwork(folder: Path, *, device: str | torch.device = "cpu") -> Hypernetwork:
    """What `save_hypernetwork` wrote, in fp32. DataError where the folder holds something else."""
    path = folder / PARTS
    if not path.is_file():
        raise DataError(f"{folder}: found no {PARTS}; expected the folder of a hypernetwork")
    model = load_model(folder, device=device)
    parts = {name: values.to(device) for name, values in load_file(path).items()}
    projection = None
    if "projection.weight" in parts:
        width, ours = parts["projection.weight"].shape
        projection = nn.Linear(ours, width, device=device)
        projection.load_state_dict({name: parts[f"projection.{name}"] for name in ("weight", "bias")})
    return Hypernetwork(model, parts["placeholders"], projection).eval()


@torch.inference_mode()
def compress(hypernetwork: Hypernetwork, context: Sequence[int]) -> NDArray[np.float32]:
    """Vectors [l, H] that stand for one demonstration set, from its token ids with the leading tokens.

    Raises:
        DataError: more tokens than the hypernetwork reads beside its placeholders.
    """
    config = hypernetwork.model.config
    room = config.max_position_embeddings - hypernetwork.vectors
    if len(context) > room:
        raise DataError(
            f"the demonstrations have {len(context):,} tokens; {config.name_or_path} reads {room:,} beside its "
            f"{hypernetwork.vectors} placeholders",
            next_step="give fewer demonstrations, or shorter ones",
        )
    vectors: NDArray[np.float32] = hypernetwork([context])[0].float().cpu().numpy()
    return vectors
