"""How fast and how big an artifact is, by itself and beside what one would use instead. Needs no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from edgeicl.arguments import (
    AcceptNoiseOption,
    ArtifactArgument,
    CoresOption,
    InstallOption,
    JsonOption,
    LikeOption,
    MemoryOption,
    MostRoundsOption,
    OnOption,
    ThreadsOption,
    file_to_write,
    limits_given,
    limits_like,
    plain,
    print_json,
    threads_for,
    threads_on,
)
from edgeicl.errors import ParityError, Problem, RegressionError, SpecError

RUNTIME = "Runtime"

bench_app = typer.Typer()

PromptOption = Annotated[int, typer.Option(min=1, help="Tokens of the prompt.")]
DecodeOption = Annotated[int, typer.Option(min=2, help="Tokens decoded one by one.")]
RepetitionsOption = Annotated[int, typer.Option(min=1, help="Repetitions that count, in each process.")]
WarmupOption = Annotated[int, typer.Option(min=0, help="Repetitions before those.")]

_OF_ALL_DEVICES = ("artifact", "on", "cores", "memory", "like", "install", "as_json")
"""What `bench` takes where times mean nothing, too; device classes refuse what they can't have of these."""


@bench_app.command(rich_help_panel=RUNTIME)
def bench(
    context: typer.Context,
    artifact: ArtifactArgument,
    on: OnOption = "local",
    cores: CoresOption = None,
    memory: MemoryOption = None,
    like: LikeOption = None,
    install: InstallOption = False,
    threads: ThreadsOption = None,
    prompt_tokens: PromptOption = 64,
    decode_tokens: DecodeOption = 32,
    repetitions: RepetitionsOption = 5,
    warmup: WarmupOption = 1,
    tests: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Prefill and decode apart besides: pp256, tg32, tg32@512 (at a depth of 512).",
        ),
    ] = None,
    sustained: Annotated[
        float, typer.Option(metavar="MINUTES", min=0.0, help="Load without pause afterwards, such as 10.")
    ] = 0.0,
    cool_down: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0.0,
            help="Between repetitions wait until it is as cool as at the start, at most so long.",
        ),
    ] = 0.0,
    attempts: Annotated[
        int, typer.Option(min=1, help="Measure again, at most so often, where repetitions disagree.")
    ] = 3,
    accept_noise: AcceptNoiseOption = False,
    against: Annotated[
        Path | None, typer.Option(metavar="BASELINE", help="An earlier result (--json) to compare with.")
    ] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            help='Exit with 11 if that holds: "decode_tps < -5%", "first_token_ms > 20"; may be repeated.',
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--output", help="Write the result there as JSON.")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV, one row a test.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure load time, time to first token, tokens/s and memory, in a process of its own.

    A result whose repetitions disagree in every attempt is refused with exit code 9. On qemu:CORE, where times
    mean nothing, logits are compared with those of this computer instead: exit code 6 where they differ.
    """
    from edgeicl.bench.agreement import agreement
    from edgeicl.bench.devices.address import device_at
    from edgeicl.bench.gate import (
        compared,
        conditions,
        read_baseline,
        require_alike,
        require_had,
        require_same_request,
    )
    from edgeicl.bench.procedure import Procedure, asked_tests
    from edgeicl.bench.stage import bench as measure
    from edgeicl.bench.workload import Workload
    from edgeicl.cache_lock import in_use
    from edgeicl.report.bench_csv import bench_csv
    from edgeicl.report.terminal import agreement_text, bench_text, compared_text
    from edgeicl.store import cache_root, write_atomically

    limits = limits_given(cores, memory)
    if like is not None:
        if on != "local":
            problem = Problem("--like", f"found with --on {on}", "expected on local: others are what they are")
            raise SpecError("device", [problem])
        limits = limits_like(like, limits)
    device = device_at(on, limits, install=install)
    count = threads_on(device, artifact, threads)
    if out is not None:
        file_to_write("--output", out, command="bench")
    if csv and as_json:
        raise SpecError("bench", [Problem("--csv", "found with --json", "expected one of them")])
    if device.fidelity is None:
        timed = [name for name in context.params if name not in _OF_ALL_DEVICES]
        given = [f"--{name.replace('_', '-')}" for name in timed if _is_given(context, name)]
        if given:
            why = f"found with --on {on}, where times mean nothing"
            raise SpecError("bench", [Problem(name, why, "expected without it") for name in given])
        with in_use(cache_root()):
            found_there = agreement(artifact, device, threads=1)
        print_json(plain(found_there)) if as_json else typer.echo(agreement_text(found_there))
        if not found_there.agrees:
            raise ParityError(f"{artifact} computes something else on {on} than here")
        return
    workload = Workload(count, prompt_tokens, decode_tokens, repetitions, warmup)
    wanted = conditions(fail_if or ())
    if wanted and against is None:
        problem = Problem("--fail-if", "no --against", "expected the baseline that it is compared with")
        raise SpecError("bench", [problem])
    asked = asked_tests(tests.split(",")) if tests is not None else ()
    baseline = read_baseline(against) if against else None
    if baseline is not None:
        require_had(wanted, baseline, asked, sustained=sustained > 0)
        require_same_request(baseline, device, workload)
    procedure = Procedure(
        asked,
        attempts=attempts,
        accept_noise=accept_noise,
        cool_down_s=cool_down,
        sustained_s=sustained * 60,
    )
    with in_use(cache_root()):
        result = measure(artifact, workload, device=device, procedure=procedure)
    if out:
        write_atomically(out, result.model_dump_json(indent=1) + "\n")
    if csv:
        typer.echo(bench_csv(result, artifact.resolve().name), nl=False)
    elif as_json:
        print_json(plain(result))
    else:
        typer.echo(bench_text(result))
    if baseline is not None:
        require_alike(result, baseline)
        found = compared(result, baseline, wanted)
        typer.echo(compared_text(found), err=csv or as_json)
        if broken := [text for entry in found for text in entry.broken]:
            raise RegressionError(f"worse than {against}: {'; '.join(broken)}")


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
    on: Annotated[
        str, typer.Option("--on", metavar="DEVICE", help="What runs all of them: local, or cuda.")
    ] = "local",
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
    seconds: Annotated[
        float,
        typer.Option(
            min=0.0, max=300.0, help="Repetitions of a process go on for so long, however fast it is."
        ),
    ] = 2.0,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, each of one process of everyone.")] = 5,
    most_rounds: MostRoundsOption = 15,
    runs: Annotated[
        int, typer.Option(min=1, help="Whole comparisons; with several it says which ratios repeat.")
    ] = 1,
    accept_noise: AcceptNoiseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure artifacts beside what one would use instead, in the same run.

    Exit code 9 if a rival could not be measured, or if rounds disagree or other processes were at work;
    figures are printed all the same. Interrupted, the same command goes on from the last whole round.
    """
    from edgeicl.bench.compare import compare, prepare
    from edgeicl.bench.devices.address import device_at
    from edgeicl.bench.devices.cuda import CudaDevice
    from edgeicl.bench.devices.local import LocalDevice
    from edgeicl.bench.noise import require_no_doubt
    from edgeicl.bench.repeats import run_repeatedly
    from edgeicl.bench.workload import Workload
    from edgeicl.cache_lock import in_use
    from edgeicl.errors import BenchError
    from edgeicl.report.terminal import comparison_text, repeated_text
    from edgeicl.specs.comparison import Comparison
    from edgeicl.store import Store, cache_root

    device = device_at(on)
    if not (isinstance(device, LocalDevice) or (isinstance(device, CudaDevice) and device.number == 0)):
        expected = "expected local, or cuda; CUDA_VISIBLE_DEVICES chooses among several GPUs"
        raise SpecError("compare", [Problem("--on", f"found {on}", expected)])
    if len({path.resolve() for path in artifacts}) < len(artifacts):
        raise SpecError("compare", [Problem("ARTIFACT", "the same folder twice", "expected each once")])
    count = threads_for(artifacts[0], threads)
    with in_use(cache_root()):
        contest = prepare(
            artifacts,
            Workload(count, prompt_tokens, decode_tokens, repetitions, warmup, seconds),
            rivals=[name.strip() for name in rivals.split(",") if name.strip()],
            model=model,
            store=Store(cache_root()),
            pythons=_pythons(python or ()),
            install=install,
            device=device,
        )
        found = (
            compare(contest, rounds=rounds, most_rounds=most_rounds)
            if runs == 1
            else run_repeatedly(contest, runs=runs, rounds=rounds, most_rounds=most_rounds)
        )
    if as_json:
        print_json(plain(found))
    else:
        typer.echo(comparison_text(found) if isinstance(found, Comparison) else repeated_text(found))
    if not accept_noise:
        require_no_doubt(found.doubts)
    if contest.not_measured:
        raise typer.Exit(BenchError.exit_code)


def _is_given(context: typer.Context, name: str) -> bool:
    """Whether an option stands in the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _pythons(given: Sequence[str]) -> dict[str, Path]:
    """Environment -> interpreter, from NAME=PATH. SpecError that lists whatever is none."""
    problems = [
        Problem("--python", repr(text), "expected NAME=PATH") for text in given if not all(text.partition("="))
    ]
    if problems:
        raise SpecError("compare", problems)
    # Not resolved: the link in an environment's folder is what makes it that environment.
    return {name: Path(path).absolute() for name, _, path in (text.partition("=") for text in given)}
