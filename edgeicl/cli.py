"""The command line: the commands of the three layers, what holds for all of them, and how they end.

A command is a few lines over what does the work, which is imported only when it runs. Results go to stdout,
everything else to stderr. Exit codes are those of `errors`.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from edgeicl import __version__, launched
from edgeicl.bench_commands import bench_app
from edgeicl.compile_commands import compile_app
from edgeicl.device_commands import device_app
from edgeicl.errors import EdgeiclError
from edgeicl.headline_commands import headline_app
from edgeicl.recipe_commands import recipe_app
from edgeicl.runtime_commands import runtime_app

log = logging.getLogger(__name__)

SETTINGS = ("-q", "--quiet", "-v", "--verbose", "--debug")
INTERRUPTED = 130
TERMINATED = 143
_ENDINGS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))

app = typer.Typer(
    name="edgeicl",
    help="Compiles a YAML recipe into a small language model that runs on a phone.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(recipe_app)
app.add_typer(compile_app)
app.add_typer(runtime_app)
app.add_typer(bench_app)
app.add_typer(headline_app)
app.add_typer(device_app)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"edgeicl {__version__}")
        raise typer.Exit


@app.callback()
def _settings(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what libraries log.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show warnings and errors only.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show details, and tracebacks of errors.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and stop."),
    ] = False,
) -> None:
    logging.basicConfig(
        stream=sys.stderr, format="%(message)s", level=logging.INFO if verbose else logging.WARNING
    )
    own_level = logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO
    logging.getLogger("edgeicl").setLevel(own_level if launched.is_first() else logging.ERROR)
    _check_cache_folder()
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.WARNING if verbose else logging.ERROR)
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS", "ORT_DISABLE_TELEMETRY"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not verbose:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def _check_cache_folder() -> None:
    named = os.environ.get("EDGEICL_CACHE_DIR")
    if named and Path(named).exists() and not Path(named).is_dir():
        raise EdgeiclError(
            f"EDGEICL_CACHE_DIR names {named}, which is no folder; expected the folder of stage outputs",
            next_step="set EDGEICL_CACHE_DIR to a folder, or unset it",
        )


def main(arguments: list[str] | None = None) -> None:
    """Runs a command; every failure becomes a message on stderr and an exit code."""
    try:
        with _cleaned_up_if_ended():
            app(args=_settings_first(sys.argv[1:] if arguments is None else arguments), prog_name="edgeicl")
    except EdgeiclError as error:
        _fail(f"error: {error}", error.exit_code)
    except SystemExit as ended:
        told = {INTERRUPTED: "interrupted", TERMINATED: "terminated"}.get(ended.code)  # type: ignore[arg-type]
        if told and launched.is_first():
            typer.echo(
                f"{told}; what is finished is kept, and not made anew when the same command is run again",
                err=True,
            )
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.strerror:  # the system's refusal, not a mistake in here
            where = f"{error.filename}: " if error.filename else ""
            _fail(f"error: {where}{error.strerror}\nnext: make room or correct the path, then run it again", 1)
        hint = "next: run it again as `edgeicl --debug ...` and report what it shows"
        _fail(f"error: unexpected {type(error).__name__}: {error}\n{hint}", 1)


@contextmanager
def _cleaned_up_if_ended() -> Iterator[None]:
    """A request to end leaves as an error does, so that nothing stays on a device, a phone or the disk."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> NoReturn:
        sys.exit(TERMINATED)

    before = {ending: signal.signal(ending, leave) for ending in _ENDINGS}
    try:
        yield
    finally:
        for ending, handler in before.items():
            signal.signal(ending, handler)


def _settings_first(arguments: list[str]) -> list[str]:
    """`compile r.yaml -q` as `-q compile r.yaml`: the settings of all commands may stand anywhere."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    moved = [word for word in arguments[:end] if word in SETTINGS]
    return [*moved, *(word for word in arguments[:end] if word not in SETTINGS), *arguments[end:]]


def _fail(message: str, exit_code: int) -> NoReturn:
    if log.isEnabledFor(logging.DEBUG):
        traceback.print_exc()
    if launched.fails_first():
        typer.echo(message if launched.is_first() else f"{launched.name()}: {message}", err=True)
    sys.exit(exit_code)
