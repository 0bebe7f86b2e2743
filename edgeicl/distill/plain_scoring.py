"""Teacher targets the plain way, to compare with: full prompts, logits of every word at every token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from edgeicl.distill.label_reader import LabelReader


@torch.inference_mode()
def plain_scores(
    reader: LabelReader, query: Sequence[int], tokens: Sequence[tuple[int, ...]], *, before: Sequence[int]
) -> NDArray[np.float32]:
    """Log-probabilities [L] of labels, renormalized; one whole forward, or one for each beginning of a label."""
    words, logits = [], {}
    for word in tokens:
        more = word[:-1]
        if more not in logits:
            ids = torch.tensor([[*before, *query, *more]], device=reader.device)
            logits[more] = reader.model(ids, use_cache=False).logits[0].float()
        steps = logits[more][-len(word) :].log_softmax(-1)
        words.append(steps.gather(-1, torch.tensor(word, device=reader.device)[:, None]).sum())
    scores: NDArray[np.float32] = torch.stack(words).log_softmax(-1).cpu().numpy()
    return scores
