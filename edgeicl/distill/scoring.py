"""Label scores of many queries, with or without demonstrations before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from edgeicl.distill.label_batch import packed_batch
from edgeicl.distill.label_reader import LabelReader, Over
from edgeicl.distill.prefix_cache import encode_prefix
from edgeicl.errors import DataError

# Tokens of packed queries in a pass. More would compare more tokens that may not see each other, fewer would
# leave the cores idle between calls.
_PACK_TOKENS = {"cpu": 256}


@torch.inference_mode()
def score_queries(
    reader: LabelReader,
    queries: Sequence[Sequence[int]],
    tokens: Sequence[tuple[int, ...]],
    *,
    before: Sequence[int],
    over: Over = "verbalizers",
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float32]:
    """Log-probabilities [N, L] (or [N, V] over the vocabulary) of `queries`, in their order.

    `before` are the tokens that stand before each query: the leading tokens, or a demonstration set, whose
    keys and values are computed once.

    Raises:
        DataError: the longest prompt has more tokens than the model reads.
    """
    longest = max(map(len, queries)) + max(map(len, tokens)) - 1
    check_fits(reader, len(before) + longest)
    prefix = encode_prefix(reader.model, before) if len(before) > 1 else None
    rows = [list(query) if prefix else [*before, *query] for query in queries]
    scores: list[NDArray[np.float32]] = []
    for pack in packs(rows, reader.device):
        batch = packed_batch(
            pack,
            tokens,
            reader.device,
            prefix_tokens=prefix.tokens if prefix else 0,
            dtype=reader.model.dtype,
        )
        scores.append(reader(batch, over, prefix).cpu().numpy())
        advance(len(pack))
    return np.concatenate(scores)


def check_fits(reader: LabelReader, prompt_tokens: int) -> None:
    """DataError if the model reads fewer tokens at once."""
    config = reader.model.config
    if prompt_tokens > config.max_position_embeddings:
        raise DataError(
            f"the longest prompt has {prompt_tokens:,} tokens; {config.name_or_path} reads "
            f"{config.max_position_embeddings:,}",
            next_step="lower distill.demonstrations.count, or leave the longest examples out of the data",
        )


def packs(rows: Sequence[Sequence[int]], device: torch.device) -> Iterator[list[Sequence[int]]]:
    """`rows` in order, cut where a pack would pass as many tokens as suit the device."""
    limit = _PACK_TOKENS.get(device.type, 1024)
    pack: list[Sequence[int]] = []
    size = 0
    for row in rows:
        if pack and size + len(row) > limit:
            yield pack
            pack, size = [], 0
        pack.append(row)
        size += len(row)
    yield pack
