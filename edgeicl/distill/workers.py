"""The processes of `torchrun` or `accelerate launch`, as the store sees them."""

from __future__ import annotations

import logging
import os
from datetime import timedelta

from edgeicl.store import SingleProcess, Workers

log = logging.getLogger(__name__)

# A stage that only the writer works on may take hours; the others wait that long.
_PATIENCE = timedelta(days=2)


class LaunchedProcesses:
    """One of several processes; on CPUs they talk over gloo."""

    def __init__(self) -> None:
        import torch
        from accelerate import PartialState

        self._state = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
        log.info("%d processes work together on %s", self._state.num_processes, self._state.device.type)

    @property
    def is_writer(self) -> bool:
        return bool(self._state.is_main_process)

    def barrier(self) -> None:
        self._state.wait_for_everyone()

    def from_writer(self, value: bool) -> bool:
        from accelerate.utils import broadcast_object_list

        (answer,) = broadcast_object_list([value])
        return bool(answer)


def workers() -> Workers:
    """The processes that run this command together: several under a launcher, else this one."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return LaunchedProcesses()
    # Set by `accelerate launch` for several processes, of which it starts one without --multi_gpu.
    if "WORLD_SIZE" not in os.environ and {"ACCELERATE_MIXED_PRECISION", "MASTER_PORT"} <= os.environ.keys():
        log.warning(
            "accelerate launch was asked for several processes and started one; going on with one\n"
            "next: give it --multi_gpu (without --cpu, also on CPUs), or use torchrun --nproc-per-node"
        )
    return SingleProcess()
