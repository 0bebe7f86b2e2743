"""The commands of the runtime layer: they take an artifact and need neither torch nor transformers."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from edgeicl.arguments import (
    ArtifactArgument,
    ColumnsOption,
    DropLabelOption,
    JsonOption,
    LabelOption,
    LimitOption,
    MapLabelOption,
    RenameOption,
    SplitOption,
    ThreadsOption,
    WhereOption,
    columns_given,
    plain,
    print_json,
    source_given,
)
from edgeicl.errors import Problem, SpecError

RUNTIME = "Runtime"

log = logging.getLogger(__name__)

runtime_app = typer.Typer()

PromptOption = Annotated[int, typer.Option(min=1, help="Tokens of the prompt.")]
DecodeOption = Annotated[int, typer.Option(min=2, help="Tokens decoded one by one.")]
RepetitionsOption = Annotated[int, typer.Option(min=1, help="Repetitions that count, in each process.")]
WarmupOption = Annotated[int, typer.Option(min=0, help="Repetitions before those.")]


@runtime_app.command(rich_help_panel=RUNTIME)
def bench(
    artifact: ArtifactArgument,
    threads: ThreadsOption = None,
    prompt_tokens: PromptOption = 64,
    decode_tokens: DecodeOption = 32,
    repetitions: RepetitionsOption = 5,
    warmup: WarmupOption = 1,
    as_json: JsonOption = False,
) -> None:
    """Measure load time, time to first token, tokens/s and memory, in a process of its own."""
    from edgeicl.bench.stage import bench as measure
    from edgeicl.bench.workload import Workload
    from edgeicl.report.terminal import bench_text

    count = _threads(artifact, threads)
    result = measure(artifact, Workload(count, prompt_tokens, decode_tokens, repetitions, warmup))
    print_json(plain(result)) if as_json else typer.echo(bench_text(result))


@runtime_app.command(rich_help_panel=RUNTIME)
def run(
    artifact: ArtifactArgument,
    texts: Annotated[
        list[str],
        typer.Argument(
            metavar="TEXT...", help="Texts of the task's columns, in order, or COLUMN=TEXT.", show_default=False
        ),
    ],
    generate: Annotated[
        int | None, typer.Option(min=1, help="Continue the text by this many tokens instead.")
    ] = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Classify a text, or continue it."""
    from edgeicl.bench.artifact import open_artifact
    from edgeicl.bench.classify import classify, task_of
    from edgeicl.bench.generate import generate as continuation
    from edgeicl.specs.pattern import pattern_columns

    opened = open_artifact(artifact)
    count = _threads(artifact, threads)
    if generate is not None:
        text = continuation(opened, " ".join(texts), tokens=generate, threads=count)
        print_json({"text": text}) if as_json else typer.echo(text)
        return
    columns = columns_given(texts, pattern_columns(task_of(opened).pattern))
    answer = classify(opened, columns, threads=count)
    voted = len(opened.prefixes) > 1
    if as_json:
        votes = {"votes": answer.votes} if voted else {}
        print_json({"label": answer.label, "probabilities": answer.probabilities} | votes)
    else:
        ranked = sorted(answer.probabilities.items(), key=lambda item: (item[0] != answer.label, -item[1]))
        told = {
            label: f"  {answer.votes[label]} of {len(opened.prefixes)} votes" * voted for label, _ in ranked
        }
        typer.echo("\n".join(f"{label:<20} {share:.4f}{told[label]}" for label, share in ranked))


@runtime_app.command("eval", rich_help_panel=RUNTIME)
def eval_command(
    artifact: ArtifactArgument,
    data: Annotated[str, typer.Option(help="file:PATH, hub:DATASET or builtin:nli/TASK.", show_default=False)],
    split: SplitOption = None,
    label: LabelOption = "label",
    limit: LimitOption = None,
    drop_label: DropLabelOption = None,
    map_label: MapLabelOption = None,
    columns: ColumnsOption = "",
    rename: RenameOption = None,
    where: WhereOption = None,
    options: Annotated[str | None, typer.Option(help="Column with a row's own list of answers.")] = None,
    breakdown: Annotated[
        str | None, typer.Option(help="Column by whose values accuracy is told apart too.")
    ] = None,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure an artifact's accuracy on any data."""
    from edgeicl.bench.classify import evaluate
    from edgeicl.report.terminal import labelled_text

    source = source_given(
        data,
        command="eval",
        option="--data",
        split=split,
        label=label,
        limit=limit,
        drop_labels=drop_label or (),
        map_labels=map_label or (),
        columns=columns,
        rename=rename or (),
        where=where or (),
        options=options,
        breakdown=breakdown,
    )
    measured = evaluate(artifact, source, Path.cwd(), threads=_threads(artifact, threads))
    print_json(plain(measured)) if as_json else typer.echo(labelled_text(measured))


@runtime_app.command(rich_help_panel=RUNTIME)
def data(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="file:PATH, hub:DATASET or builtin:nli/TASK.", show_default=False
        ),
    ],
    split: SplitOption = None,
    columns: ColumnsOption = "",
    rename: RenameOption = None,
    where: WhereOption = None,
    limit: Annotated[int, typer.Option(min=1, help="Print at most this many rows.")] = 10,
) -> None:
    """Print rows of any data as JSON, one a line."""
    from itertools import islice

    from edgeicl.tasks.readers import wanted_rows

    given = source_given(
        source,
        command="data",
        option="SOURCE",
        split=split,
        limit=limit,
        columns=columns,
        rename=rename or (),
        where=where or (),
    )
    found = list(islice(wanted_rows(given, Path.cwd()), limit))
    for _, row in found:
        typer.echo(json.dumps(row, ensure_ascii=False, default=str))
    if not found:
        log.warning("%s: found no row%s", source, " that --where asks for" if where else "")


@runtime_app.command("compare", rich_help_panel=RUNTIME)
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
    as_json: JsonOption = False,
) -> None:
    """Measure artifacts beside what one would use instead, in the same run.

    Exit code 9 if a rival could not be measured; figures of the others are printed all the same.
    """
    from edgeicl.bench.compare import compare
    from edgeicl.bench.workload import Workload
    from edgeicl.cache_lock import in_use
    from edgeicl.errors import BenchError
    from edgeicl.report.terminal import comparison_text
    from edgeicl.store import Store, cache_root

    count = _threads(artifacts[0], threads)
    with in_use(cache_root()):
        comparison = compare(
            artifacts,
            Workload(count, prompt_tokens, decode_tokens, repetitions, warmup),
            rivals=[name.strip() for name in rivals.split(",") if name.strip()],
            model=model,
            store=Store(cache_root()),
            rounds=rounds,
            pythons=_pythons(python or ()),
            install=install,
        )
    print_json(plain(comparison)) if as_json else typer.echo(comparison_text(comparison))
    if comparison.not_measured:
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


@runtime_app.command("probe", rich_help_panel=RUNTIME)
def probe_command(
    out: Annotated[Path, typer.Option(help="Target file to write.", show_default=False)],
    given: Annotated[
        str, typer.Option("--from", metavar="TARGET", help="Target file or name to start from.")
    ] = "host-cpu",
    on: Annotated[str, typer.Option(help="Device to measure: local, this computer.")] = "local",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a device in one to three minutes, and write a target whose predictions rest on that."""
    from edgeicl.probe import probe
    from edgeicl.specs.catalog import load_target
    from edgeicl.specs.loading import dump_yaml

    if on != "local":
        raise SpecError("probe", [Problem("--on", f"found {on}", "expected local")])
    if out.exists():
        found = Problem("--out", f"{out} exists", "expected a file that doesn't")
        raise SpecError("probe", [found], next_step="name another file, or remove this one")
    if not out.parent.is_dir():
        found = Problem("--out", f"{out.parent}: no such folder", "expected one that is there")
        raise SpecError("probe", [found], next_step="make the folder, or name a file in another")
    measured = probe(load_target(given), threads=threads).model_copy(update={"name": out.stem})
    out.write_text(dump_yaml(measured))
    told = f"{out}: {measured.calibration.source if measured.calibration else ''}"
    print_json(plain(measured)) if as_json else typer.echo(told)


def _threads(artifact: Path, asked: int | None) -> int:
    """As many as asked for, else as the artifact's target runs on and this computer has.

    More than there are cores are refused: they wait for each other, and what is measured is that.
    """
    from edgeicl.bench.runner import usable_cores
    from edgeicl.specs.catalog import load_target

    cores = usable_cores()
    if asked is not None and asked > cores:
        problem = Problem("--threads", f"{asked} threads on {cores} cores", f"expected at most {cores}")
        raise SpecError("threads", [problem], next_step="ask for fewer, or leave --threads out")
    target = artifact / "target.resolved.yaml"
    return asked or min(cores, load_target(str(target)).threads if target.is_file() else cores)
