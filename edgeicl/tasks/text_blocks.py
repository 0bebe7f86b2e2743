"""Documents as blocks of token ids of one length, for language modelling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeicl.errors import DataError
from edgeicl.tasks.prompt import leading_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def text_blocks(tokenizer: Tokenizer, documents: Sequence[str], *, block_tokens: int) -> NDArray[np.int64]:
    """Ids [N, block_tokens] of all documents behind each other, each after the tokenizer's leading tokens.

    The rest that fills no block is left out.

    Raises:
        DataError: the documents fill no block.
    """
    leading = leading_tokens(tokenizer)
    encodings = tokenizer.encode_batch(list(documents), add_special_tokens=False)
    ids = np.array([token for encoding in encodings for token in (*leading, *encoding.ids)], dtype=np.int64)
    blocks = len(ids) // block_tokens
    if blocks == 0:
        raise DataError(
            f"the text has {len(ids):,} tokens; expected at least one block of {block_tokens:,}",
            next_step="give more text, or a shorter block",
        )
    return ids[: blocks * block_tokens].reshape(blocks, block_tokens)
