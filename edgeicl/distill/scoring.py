"""Label scores of many queries, with or without demonstrations before them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from edgeicl.distill.label_batch import packed_batch, padded_batch
from edgeicl.distill.label_reader import LabelReader, Over
from edgeicl.distill.prefix_cache import Before, encode_prefix
from edgeicl.errors import DataError
from edgeicl.models.architectures.table import ARCHITECTURES
from edgeicl.models.memory import Scoring

# Tokens of packed queries in a pass. More would compare more tokens that may not see each other, fewer would
# leave the cores idle between calls.
_PACK_TOKENS = {"cpu": 256}


ScoreSlices = Callable[..., Iterator[NDArray[np.float32]]]
"""`score_slices`, or what takes the same arguments and asks in another way."""


def score_queries(
    reader: LabelReader,
    queries: Sequence[Sequence[int]],
    tokens: Sequence[tuple[int, ...]],
    *,
    before: Before,
    over: Over = "verbalizers",
    advance: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float32]:
    """Log-probabilities [N, L] (or [N, V] over the vocabulary) of `queries`, in their order.

    `before` stands before each query: the leading tokens, or a demonstration set as tokens or vectors, whose
    keys and values are computed once.

    Raises:
        DataError: the longest prompt has more tokens than the model reads.
    """
    everything = [(0, len(queries))]
    return next(score_slices(reader, queries, tokens, everything, before=before, over=over, advance=advance))


@torch.inference_mode()
def score_slices(
    reader: LabelReader,
    queries: Sequence[Sequence[int]],
    tokens: Sequence[tuple[int, ...]],
    slices: Sequence[tuple[int, int]],
    *,
    before: Before,
    over: Over = "verbalizers",
    advance: Callable[[int], None] = lambda _: None,
) -> Iterator[NDArray[np.float32]]:
    """`score_queries` of each slice (start, stop) of `queries`, one after the other.

    A slice's scores have the same bits whatever other slices there are.
    """
    longest = max(map(len, queries)) + max(map(len, tokens)) - 1
    check_fits(reader, len(before) + longest)
    shared = len(before) > 1 or isinstance(before, np.ndarray)
    prefix = encode_prefix(reader.model, before) if shared else None
    # Others may take positions from elsewhere than `position_ids` (ALiBi), or read no mask but a plain one.
    packable = reader.model.config.model_type in ARCHITECTURES
    for start, stop in slices:
        rows = [list(query) if prefix else [*before, *query] for query in queries[start:stop]]
        scores: list[NDArray[np.float32]] = []
        for pack in packs(rows, pack_tokens(reader.device.type) if packable else 1):
            batch = padded_batch(pack, tokens, reader.device)
            if packable:
                batch = packed_batch(
                    pack,
                    tokens,
                    reader.device,
                    prefix_tokens=prefix.tokens if prefix else 0,
                    dtype=reader.model.dtype,
                )
            scores.append(reader(batch, over, prefix).cpu().numpy())
            advance(len(pack))
        yield np.concatenate(scores)


def pack_tokens(device_type: str) -> int:
    """Tokens of packed queries that go through the model at once; a longer query goes alone."""
    return _PACK_TOKENS.get(device_type, 1024)


def scoring_size(
    queries: Sequence[Sequence[int]],
    tokens: Sequence[tuple[int, ...]],
    *,
    before: Before,
    over: Over,
    device_type: str,
    every_token: bool = False,
) -> Scoring:
    """What a pass of `score_queries` has at most, for an estimate of its memory.

    `every_token`: whether all of a query's tokens are predicted, as through the channel.
    """
    lengths = sorted(map(len, queries))
    pack = max(pack_tokens(device_type), lengths[-1])
    size = count = 0
    while count < len(lengths) and size + lengths[count] <= pack:
        size += lengths[count]
        count += 1
    word = max(map(len, tokens))
    # Words of several tokens are read as they go on, with logits of the whole vocabulary.
    full = count * word if over == "vocabulary" or word > 1 else 0
    full = pack if every_token else full
    return Scoring(prefix_tokens=len(before), pass_tokens=pack + count * (word - 1), full_logits=full)


def check_fits(reader: LabelReader, prompt_tokens: int) -> None:
    """DataError if the model reads fewer tokens at once; some, such as those with ALiBi, name no limit."""
    config = reader.model.config
    reads = getattr(config, "max_position_embeddings", None)
    if reads is not None and prompt_tokens > reads:
        raise DataError(
            f"the longest prompt has {prompt_tokens:,} tokens; {config.name_or_path} reads {reads:,}",
            next_step="lower distill.demonstrations.count, or leave the longest examples out of the data",
        )


def packs(rows: Sequence[Sequence[int]], limit: int) -> Iterator[list[Sequence[int]]]:
    """`rows` in order, cut where a pack would pass `limit` tokens."""
    pack: list[Sequence[int]] = []
    size = 0
    for row in rows:
        if pack and size + len(row) > limit:
            yield pack
            pack, size = [], 0
        pack.append(row)
        size += len(row)
    yield pack
