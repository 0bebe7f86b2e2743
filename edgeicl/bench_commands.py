"""How fast and how big an artifact is, by itself and beside what one would use instead. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from edgeicl.arguments import (
    ArtifactArgument,
    JsonOption,
    OnOption,
    ThreadsOption,
    plain,
    print_json,
    threads_for,
)
from edgeicl.errors import Problem, SpecError

RUNTIME = "Runtime"

bench_app = typer.Typer()

PromptOption = Annotated[int, typer.Option(min=1, help="Tokens of the prompt.")]
DecodeOption = Annotated[int, typer.Option(min=2, help="Tokens decoded one by one.")]
RepetitionsOption = Annotated[int, typer.Option(min=1, help="Repetitions that count, in each process.")]
WarmupOption = Annotated[int, typer.Option(min=0, help="Repetitions before those.")]


@bench_app.command(rich_help_panel=RUNTIME)
def bench(
    artifact: ArtifactArgument,
    on: OnOption = "local",
    threads: ThreadsOption = None,
    prompt_tokens: PromptOption = 64,
    decode_tokens: DecodeOption = 32,
    repetitions: RepetitionsOption = 5,
    warmup: WarmupOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Measure load time, time to first token, tokens/s and memory, in a process of its own."""
    from edgeicl.bench.devices.address import device_at
    from edgeicl.bench.stage import bench as measure
    from edgeicl.bench.workload import Workload
    from edgeicl.report.terminal import bench_text

    count = threads_for(artifact, threads)
    workload = Workload(count, prompt_tokens, decode_tokens, repetitions, warmup)
    result = measure(artifact, workload, device=device_at(on))
    print_json(plain(result)) if as_json else typer.echo(bench_text(result))


@bench_app.command("compare", rich_help_panel=RUNTIME)
def compare_command(
    artifacts: Annotated[
        list[Path],
        typer.Argument(
            metavar="ARTIFACT...",
            help="Folders made by `edgeicl compile`, of one student or shape.",
            show_default=False,
        ),
    ],
    rivals: Annotated[
        str, typer.Option("--with", metavar="A,B,...", help="What to compare with; an unknown name lists all.")
    ] = "optimum-int8",
    model: Annotated[
        Path | None,
        typer.Option(help="Checkpoint of the rivals; random weights of the same shape unless given."),
    ] = None,
    python: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="Python that has a rival's libraries, such as executorch=/opt/et/bin/python; may be repeated.",
        ),
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Make missing environments of rivals with pip, in the cache.")
    ] = False,
    threads: ThreadsOption = None,
    prompt_tokens: PromptOption = 64,
    decode_tokens: DecodeOption = 32,
    repetitions: RepetitionsOption = 3,
    warmup: WarmupOption = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, each of one process of everyone.")] = 5,
    runs: Annotated[
        int, typer.Option(min=1, help="Whole comparisons; with several it says which ratios repeat.")
    ] = 1,
    as_json: JsonOption = False,
) -> None:
    """Measure artifacts beside what one would use instead, in the same run.

    Exit code 9 if a rival could not be measured; figures of the others are printed all the same.
    """
    from edgeicl.bench.compare import prepare
    from edgeicl.bench.repeats import run_repeatedly
    from edgeicl.bench.workload import Workload
    from edgeicl.cache_lock import in_use
    from edgeicl.errors import BenchError
    from edgeicl.report.terminal import comparison_text, repeated_text
    from edgeicl.specs.comparison import Comparison
    from edgeicl.store import Store, cache_root

    count = threads_for(artifacts[0], threads)
    with in_use(cache_root()):
        contest = prepare(
            artifacts,
            Workload(count, prompt_tokens, decode_tokens, repetitions, warmup),
            rivals=[name.strip() for name in rivals.split(",") if name.strip()],
            model=model,
            store=Store(cache_root()),
            pythons=_pythons(python or ()),
            install=install,
        )
        found = contest.run(rounds) if runs == 1 else run_repeatedly(contest, runs=runs, rounds=rounds)
    if as_json:
        print_json(plain(found))
    else:
        typer.echo(comparison_text(found) if isinstance(found, Comparison) else repeated_text(found))
    if contest.not_measured:
        raise typer.Exit(BenchError.exit_code)


def _pythons(given: Sequence[str]) -> dict[str, Path]:
    """Environment -> interpreter, from NAME=PATH. SpecError that lists whatever is none."""
    problems = [
        Problem("--python", repr(text), "expected NAME=PATH") for text in given if not all(text.partition("="))
    ]
    if problems:
        raise SpecError("compare", problems)
    # Not resolved: the link in an environment's folder is what makes it that environment.
    return {name: Path(path).absolute() for name, _, path in (text.partition("=") for text in given)}
