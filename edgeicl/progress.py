"""Progress of long work, on stderr: a bar with an estimate on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 10.0
_told_s = [time.monotonic()]
"""When the last line was written, whoever wrote it: short pieces of work in turn are told as a long one is."""
_DRAWN_PER_SECOND = 2.0  # each drawing is some 200 bytes of escape codes, which end up in recorded logs


@contextmanager
def track(description: str, total: int, *, already_done: int = 0) -> Iterator[Callable[[int], None]]:
    """Shows how far `description` is; the yielded function is told of `n` more of `total` being done.

    What an earlier run had already done counts in the figure, not in the estimate.
    """
    if sys.stderr.isatty() and log.isEnabledFor(logging.INFO):
        with _bar(description, total, already_done) as advance:
            yield advance
    else:
        yield _lines(description, total, already_done)


@contextmanager
def track_seconds(description: str, seconds: float) -> Iterator[None]:
    """The same for what takes a known time and says nothing meanwhile, such as another process."""
    done = threading.Event()

    def tell(advance: Callable[[int], None]) -> None:
        for _ in range(int(seconds)):
            if done.wait(1.0):
                return
            advance(1)

    with track(f"{description}, seconds", int(seconds)) as advance:
        teller = threading.Thread(target=tell, args=(advance,), daemon=True)
        teller.start()
        try:
            yield
        finally:
            done.set()
            teller.join()


@contextmanager
def _bar(description: str, total: int, already_done: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("  {task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, refresh_per_second=_DRAWN_PER_SECOND) as progress:
        task = progress.add_task(description, total=total, completed=already_done)
        yield lambda n: progress.update(task, advance=n)


def _lines(description: str, total: int, already_done: int) -> Callable[[int], None]:
    started = time.monotonic()
    done = already_done

    def advance(n: int) -> None:
        nonlocal done
        done += n
        now = time.monotonic()
        if now - _told_s[0] >= _SECONDS_BETWEEN_LINES and already_done < done < total:
            _told_s[0] = now
            remaining_s = (now - started) / (done - already_done) * (total - done)
            log.info("%s: %d of %d, about %.0f s left", description, done, total, remaining_s)

    return advance
