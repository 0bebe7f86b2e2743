"""The commands of the compile layer: from a recipe to artifacts, and what there is of both."""

from __future__ import annotations

import logging
from dataclasses import asdict
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
    RecipeArgument,
    RenameOption,
    SetOption,
    SplitOption,
    TargetOption,
    TargetSetOption,
    WhereOption,
    plain,
    print_json,
    source_given,
)
from edgeicl.errors import BudgetError, Problem, SpecError

log = logging.getLogger(__name__)

COMPILE = "Compile"

compile_app = typer.Typer()
cache_app = typer.Typer(help="What is stored of earlier builds.", no_args_is_help=True)
compile_app.add_typer(cache_app, name="cache", rich_help_panel=COMPILE)


@compile_app.command("compile", rich_help_panel=COMPILE)
def compile_command(
    recipe: RecipeArgument,
    target: TargetOption = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the artifact, or of one folder a target.")
    ] = None,
    overrides: SetOption = None,
    target_overrides: TargetSetOption = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail where something asked for can't be done.")
    ] = False,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build every stage anew.")] = False,
    bench: Annotated[bool, typer.Option(help="Benchmark the artifact on this computer.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Distill, quantize for a memory budget, write and check the artifact, measure it."""
    from edgeicl.job import resolve
    from edgeicl.pipeline import compile_job
    from edgeicl.report.built_text import built_text

    job = resolve(
        recipe,
        targets=target or (),
        output=output,
        recipe_overrides=overrides or (),
        target_overrides=target_overrides or (),
    )
    result = compile_job(job, rebuild=rebuild, strict=strict, measure=bench)
    if result is None:  # a helping process of a launcher
        return
    if as_json:
        artifacts = [
            {
                "folder": str(built.folder),
                "report": str(built.folder / "report.html"),
                "manifest": plain(built.manifest),
            }
            for built in result.built
        ]
        print_json({"recipe": job.recipe.name, "seconds": round(result.seconds, 3), "artifacts": artifacts})
        return
    texts = [built_text(built.manifest, target=built.target, folder=built.folder) for built in result.built]
    typer.echo("\n\n".join(texts))
    log.info("done in %.1f s", result.seconds)


@compile_app.command(rich_help_panel=COMPILE)
def plan(
    recipe: RecipeArgument,
    target: TargetOption = None,
    overrides: SetOption = None,
    target_overrides: TargetSetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict size, memory and feasibility of a build, and what it has to do, before any work."""
    from edgeicl.forecast import forecast_job
    from edgeicl.job import resolve
    from edgeicl.report.forecast import forecast_text

    job = resolve(
        recipe,
        targets=target or (),
        recipe_overrides=overrides or (),
        target_overrides=target_overrides or (),
        builds=False,
    )
    forecast, errors = forecast_job(job)
    print_json(plain(forecast)) if as_json else typer.echo(forecast_text(forecast))
    if errors:
        raise BudgetError("\n".join(map(str, errors)))  # one for each target that nothing fits


@compile_app.command(rich_help_panel=COMPILE)
def inspect(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="ARTIFACT|RECIPE", help="Artifact folder, recipe file or name.", show_default=False
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Show plan, size ledger and provenance of an artifact, or a recipe with its defaults."""
    from edgeicl.bench.artifact import open_artifact
    from edgeicl.report.terminal import artifact_text, recipe_text
    from edgeicl.specs.catalog import find_recipe, load_recipe, shipped
    from edgeicl.specs.loading import dump_yaml
    from edgeicl.specs.nearest import one_of

    if Path(subject).is_dir():
        manifest = open_artifact(Path(subject)).manifest
        print_json(plain(manifest)) if as_json else typer.echo(artifact_text(manifest))
        return
    known = [*shipped("recipes"), *shipped("recipes/pretrain")]
    if not Path(subject).exists() and subject not in known:
        expected = f"expected an artifact's folder, a recipe file or a shipped recipe; {one_of(subject, known)}"
        raise SpecError("inspect", [Problem("ARTIFACT|RECIPE", f"there is no {subject!r}", expected)])
    recipe = load_recipe(subject)
    print_json(plain(recipe)) if as_json else typer.echo(
        recipe_text(recipe, dump_yaml(recipe), find_recipe(subject))
    )


@compile_app.command(rich_help_panel=COMPILE)
def prefix(
    artifact: ArtifactArgument,
    demonstrations: Annotated[
        str, typer.Option(help="file:PATH, hub:DATASET or builtin:nli/TASK.", show_default=False)
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the result; the artifact's unless given.")
    ] = None,
    split: SplitOption = None,
    label: LabelOption = "label",
    limit: LimitOption = None,
    drop_label: DropLabelOption = None,
    map_label: MapLabelOption = None,
    columns: ColumnsOption = "",
    rename: RenameOption = None,
    where: WhereOption = None,
    count: Annotated[
        int | None,
        typer.Option(min=1, help="Demonstrations of a set, drawn; all, in their order, unless given."),
    ] = None,
    sets: Annotated[int, typer.Option(min=1, help="Sets to draw; the majority of them decides.")] = 1,
    balanced: Annotated[bool, typer.Option(help="Draw as many of each label.")] = True,
    fit: Annotated[bool, typer.Option("--fit", help="Leave out the last of a set that is too long.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Put other demonstrations before an artifact's queries, without training."""
    from edgeicl.bench.artifact import open_artifact
    from edgeicl.bench.classify import task_of
    from edgeicl.compressor import compressed
    from edgeicl.new_prefix import demonstration_sets, prefix_kind, replace_prefix
    from edgeicl.report.terminal import prefix_text
    from edgeicl.tasks.readers import read_examples

    source = source_given(
        demonstrations,
        command="prefix",
        option="--demonstrations",
        split=split,
        label=label,
        limit=limit,
        drop_labels=drop_label or (),
        map_labels=map_label or (),
        columns=columns,
        rename=rename or (),
        where=where or (),
    )
    if sets > 1 and count is None:
        problem = Problem("--sets", f"{sets} sets of all demonstrations", "expected --count with several sets")
        raise SpecError("prefix", [problem], next_step="say with --count how many to draw for each")
    opened = open_artifact(artifact)
    examples = read_examples(source, labels=tuple(task_of(opened).verbalizers), base_folder=Path.cwd())
    shown = demonstration_sets(opened, examples, count=count, sets=sets, balanced=balanced, drop_to_fit=fit)
    folder = output or artifact
    stands = compressed(opened, shown) if prefix_kind(opened) == "vectors" else shown
    manifest = replace_prefix(opened, stands, output=folder)
    if as_json:
        print_json({"folder": str(folder), "manifest": plain(manifest)})
    else:
        typer.echo(prefix_text(manifest, folder))


@compile_app.command(rich_help_panel=COMPILE)
def targets(as_json: JsonOption = False) -> None:
    """List the shipped targets."""
    from edgeicl.report.terminal import targets_text
    from edgeicl.specs.catalog import load_target, shipped

    loaded = {name: load_target(str(path)) for name, path in shipped("targets").items()}
    if as_json:
        print_json({name: plain(target) for name, target in loaded.items()})
    else:
        typer.echo(targets_text(loaded))


@cache_app.command("list")
def cache_list(as_json: JsonOption = False) -> None:
    """List stored stage outputs with their sizes, and what stopped builds left."""
    from edgeicl.report.tables import aligned
    from edgeicl.specs.byte_size import format_byte_size
    from edgeicl.store import cache_root
    from edgeicl.stored import stored

    found = stored(cache_root())
    if as_json:
        print_json({"folder": str(cache_root()), "outputs": [asdict(entry) for entry in found]})
        return
    rows = [
        (entry.stage, entry.digest, format_byte_size(entry.bytes), "" if entry.finished else "unfinished")
        for entry in found
    ]
    typer.echo(f"{cache_root()}\n{aligned(('stage', 'digest', 'size', 'state'), rows)}")


@cache_app.command("clear")
def cache_clear() -> None:
    """Remove stored stage outputs, and rounds of interrupted comparisons, unless they are in use.

    Artifacts stay.
    """
    from edgeicl.store import cache_root
    from edgeicl.stored import clear

    removed, left = clear(cache_root())
    typer.echo(f"{cache_root()}: removed {removed} stage outputs" + f", left {left} half built" * bool(left))
