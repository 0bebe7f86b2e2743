"""How far one distribution over tokens is from another, in nats: plain numpy, to check the programme by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def log_softmax(logits: Floats) -> NDArray[np.float64]:
    """Log-probabilities of `logits` [..., V] over the last axis, in float64; shifts of a row don't matter."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def kl(reference_logits: Floats, logits: Floats) -> NDArray[np.float64]:
    """KL(reference || other) in nats for each row of `[..., V]`; 0 when both are the same distribution.

    The expectation is over the reference: sum_v p(v) * (log p(v) - log q(v)).
    """
    reference = log_softmax(reference_logits)
    # Not below 0 but for rounding, which is left in: clipping it would bias means of tiny divergences.
    return np.asarray((np.exp(reference) * (reference - log_softmax(logits))).sum(axis=-1))
