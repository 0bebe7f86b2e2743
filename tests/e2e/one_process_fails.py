"""`edgeicl` in one of several processes of a launcher, where something happens to the process of one rank.

python -m torch.distributed.run ... tests/e2e/one_process_fails.py RANK WHAT ARGUMENTS...
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from typing import Any, NoReturn

from edgeicl import shared_cache
from edgeicl.cli import main
from edgeicl.distill import shards, trainer
from edgeicl.errors import DataError

RANK, WHAT = int(sys.argv.pop(1)), sys.argv.pop(1)


def killed() -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def refused() -> NoReturn:
    raise DataError("this node's disk is not like the others", next_step="repair it")


def after(count: int, happens: Any, function: Any) -> Any:
    """`function`, which is called `count` times before it `happens`."""
    calls = 0

    def called(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return happens() if calls > count else function(*arguments, **named)

    return called


if int(os.environ["RANK"]) == RANK:
    if WHAT == "killed-scoring":
        shards.keep_file = after(1, killed, shards.keep_file)
    elif WHAT == "killed-training":
        trainer.learning_rate_at = after(3, killed, trainer.learning_rate_at)
    elif WHAT == "refused":
        shards.keep_file = after(1, refused, shards.keep_file)
    else:
        assert WHAT == "other-cache"
        os.environ["EDGEICL_CACHE_DIR"] = tempfile.mkdtemp()
        shared_cache.require_shared_cache.__kwdefaults__["seen_within_s"] = 1.0
main(sys.argv[1:])
