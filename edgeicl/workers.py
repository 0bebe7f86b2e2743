"""The processes that `accelerate launch` started, as the store sees them. Imports torch only then."""

from __future__ import annotations

import os

from edgeicl.store import SingleProcess, Workers


def launched_workers() -> Workers:
    """The processes of this run: those of `accelerate launch`, or this one alone."""
    return _Launched() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else SingleProcess()


class _Launched:
    """Several processes joined by torch.distributed, as accelerate set it up."""

    def __init__(self) -> None:
        from accelerate import PartialState

        self._state = PartialState()

    @property
    def is_writer(self) -> bool:
        return bool(self._state.is_main_process)

    def barrier(self) -> None:
        self._state.wait_for_everyone()

    def from_writer(self, value: bool) -> bool:
        from accelerate.utils import broadcast_object_list

        values: list[bool] = [value]
        broadcast_object_list(values, from_process=0)
        return values[0]
