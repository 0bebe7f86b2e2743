"""What an app does with an artifact, by hand: ask it, and see how well it answers. Needs no torch."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import typer

from edgeicl.arguments import (
    ArtifactArgument,
    ColumnsOption,
    DropLabelOption,
    InstallOption,
    JsonOption,
    LabelOption,
    LimitOption,
    MapLabelOption,
    OnOption,
    RenameOption,
    SplitOption,
    ThreadsOption,
    WhereOption,
    columns_given,
    plain,
    print_json,
    source_given,
    threads_for,
    threads_on,
)

RUNTIME = "Runtime"

log = logging.getLogger(__name__)

runtime_app = typer.Typer()


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
    count = threads_for(artifact, threads)
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
    on: OnOption = "local",
    install: InstallOption = False,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure an artifact's accuracy on any data, on any device."""
    from edgeicl.bench.classify import evaluate
    from edgeicl.bench.devices.address import device_at
    from edgeicl.cache_lock import in_use
    from edgeicl.report.terminal import labelled_text
    from edgeicl.store import cache_root

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
    device = device_at(on, install=install)
    count = threads_on(device, artifact, threads)
    with in_use(cache_root()):
        measured = evaluate(artifact, source, Path.cwd(), threads=count, device=device)
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
