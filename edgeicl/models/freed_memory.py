"""Freed tensors go back to the system, so that a process holds what it uses."""

from __future__ import annotations

import ctypes
import sys

_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h
_THRESHOLD_BYTES = 1 << 20


def return_freed_tensors() -> bool:
    """Asks glibc to give memory of 1 MiB or more back as soon as it is freed; False where there is none.

    Else its threshold grows with what is freed, and aligned tensors leave gaps that are not used again:
    measured, half of the resident memory of training with LoRA (docs/results/context-distillation.md).
    """
    if not sys.platform.startswith("linux"):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    return bool(set_option and set_option(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES))
