"""How many threads torch computes with on a CPU."""

from __future__ import annotations

import logging

import torch

log = logging.getLogger(__name__)

SMALL_PARAMETERS = 5_000_000
_ALL = torch.get_num_threads()


def fit_threads(parameters: int) -> None:
    """One thread for a model that is small, else all there are.

    A second one gains little where each operation takes microseconds, and where other programs run it costs:
    threads wait for each other at every operation, and for the other programs (docs/results/quickstart.md).
    """
    torch.set_num_threads(1 if parameters < SMALL_PARAMETERS else _ALL)
