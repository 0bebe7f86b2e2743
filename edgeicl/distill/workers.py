"""The processes of `accelerate launch`, as the store sees them."""

from __future__ import annotations

import os
from datetime import timedelta

from edgeicl.store import SingleProcess, Workers

# A stage that only the writer works on may take hours; the others wait that long.
_PATIENCE = timedelta(days=2)


class LaunchedProcesses:
    """One of several processes of `accelerate launch`; on CPUs they talk over gloo."""

    def __init__(self) -> None:
        import torch
        from accelerate import PartialState

        self._state = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)

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
    """The processes that run this command together: several under `accelerate launch`, else this one."""
    return LaunchedProcesses() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else SingleProcess()
