"""The processes of `torchrun` or `accelerate launch`, as the store sees them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from edgeicl.errors import EdgeiclError
from edgeicl.launched import process_count
from edgeicl.store import SingleProcess, T, Workers

log = logging.getLogger(__name__)

# A stage that only the writer works on may take hours; the others wait that long.
_PATIENCE = timedelta(days=2)
_FSDP = "ACCELERATE_USE_FSDP"


class LaunchedProcesses:
    """One of several processes; on CPUs they talk over gloo."""

    def __init__(self) -> None:
        import torch
        from accelerate import PartialState

        # FSDP is for the teacher here: students fit a phone, so every process has a whole one. Left to see
        # it, accelerate and transformers would shard each model that is loaded or trained.
        self.shards_teacher = os.environ.pop(_FSDP, "false").lower() in ("1", "true")
        with _together():
            self._state = PartialState(cpu=not torch.cuda.is_available(), timeout=_PATIENCE)
        log.info("%d processes work together on %s", self.count, self._state.device.type)
        if self.shards_teacher:
            log.info("FSDP: each process holds 1/%d of the teacher's layers", self.count)

    @property
    def is_writer(self) -> bool:
        return bool(self._state.is_main_process)

    @property
    def index(self) -> int:
        return int(self._state.process_index)

    @property
    def count(self) -> int:
        return int(self._state.num_processes)

    def barrier(self) -> None:
        with _together():
            self._state.wait_for_everyone()

    def from_writer(self, value: T) -> T:
        from accelerate.utils import broadcast_object_list

        values = [value]
        with _together():
            broadcast_object_list(values)
        return values[0]

    def from_all(self, value: T) -> list[T]:
        from accelerate.utils import gather_object

        with _together():
            values: list[T] = gather_object([value])
        return values


@contextmanager
def _together() -> Iterator[None]:
    """What the libraries raise where another process is gone, said in words."""
    try:
        yield
    except RuntimeError as error:
        raise EdgeiclError(
            f"another process of this launch has ended, so this one can't go on "
            f"({(str(error).splitlines() or [type(error).__name__])[0]})",
            next_step="see what the other one or the launcher says, then run the same command again to go on",
        ) from error


def workers() -> Workers:
    """The processes that run this command together: several under a launcher, else this one."""
    if process_count() > 1:
        return LaunchedProcesses()
    # Set by `accelerate launch` for several processes, of which it starts one without --multi_gpu.
    if "WORLD_SIZE" not in os.environ and {"ACCELERATE_MIXED_PRECISION", "MASTER_PORT"} <= os.environ.keys():
        log.warning(
            "accelerate launch was asked for several processes and started one; going on with one\n"
            "next: give it --multi_gpu (without --cpu, also on CPUs), or use torchrun --nproc-per-node"
        )
    return SingleProcess()
