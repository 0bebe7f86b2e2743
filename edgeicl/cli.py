"""The commands. Each is a few lines over what does the work, which is imported only when it runs.

Results go to stdout, everything else to stderr. Exit codes are those of `errors`.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from edgeicl import __version__
from edgeicl.arguments import (
    JsonOption,
    RecipeArgument,
    SetOption,
    TargetOption,
    TargetSetOption,
    plain,
    print_json,
)
from edgeicl.errors import EdgeiclError, Problem, SpecError
from edgeicl.runtime_commands import runtime_app

log = logging.getLogger(__name__)

RECIPE, COMPILE = "Recipe", "Compile"

app = typer.Typer(
    name="edgeicl",
    help="Compiles a YAML recipe into a small language model that runs on a phone.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(runtime_app)
cache_app = typer.Typer(help="What is stored of earlier builds.", no_args_is_help=True)
app.add_typer(cache_app, name="cache", rich_help_panel=COMPILE)


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
    logging.getLogger("edgeicl").setLevel(own_level if _prints() else logging.ERROR)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.WARNING if verbose else logging.ERROR)
    for name in ("HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not verbose:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


@app.command(rich_help_panel=RECIPE)
def check(
    recipe: RecipeArgument,
    target: TargetOption = None,
    overrides: SetOption = None,
    target_overrides: TargetSetOption = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print the recipe with every default written out.")
    ] = False,
) -> None:
    """Check a recipe and its targets; list every problem at once."""
    from edgeicl.job import resolve
    from edgeicl.specs.loading import dump_yaml

    job = resolve(
        recipe,
        targets=target or (),
        recipe_overrides=overrides or (),
        target_overrides=target_overrides or (),
        builds=False,
    )
    if show:
        typer.echo(dump_yaml(job.recipe).rstrip())
    else:
        names = ", ".join(target.name for target in job.targets)
        typer.echo(f"{job.recipe_path}: nothing wrong; targets: {names}")


@app.command(rich_help_panel=RECIPE)
def schema(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="recipe, target or plan.", show_default=False)],
) -> None:
    """Print the JSON Schema of recipes, targets or plans, for editors."""
    from edgeicl.specs.nearest import one_of
    from edgeicl.specs.schema_export import WRITTEN_SPECS, json_schema

    if kind not in WRITTEN_SPECS:
        raise SpecError("schema", [Problem("KIND", repr(kind), one_of(kind, WRITTEN_SPECS))])
    print_json(json_schema(kind))


@app.command(rich_help_panel=RECIPE)
def pretrain(
    recipe: Annotated[Path, typer.Argument(help="Pretraining recipe.", exists=True, dir_okay=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the models.", show_default=False)],
) -> None:
    """Train the built-in teacher and student anew."""
    from edgeicl.distill.pretrain import pretrain as train
    from edgeicl.specs.loading import load_spec
    from edgeicl.specs.pretraining import Pretraining

    print_json(train(load_spec(recipe, Pretraining), output))


@app.command("compile", rich_help_panel=COMPILE)
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
    from edgeicl.report.terminal import built_text

    job = resolve(
        recipe,
        targets=target or (),
        output=output,
        recipe_overrides=overrides or (),
        target_overrides=target_overrides or (),
    )
    result = compile_job(job, rebuild=rebuild, strict=strict, measure=bench)
    if result is None:  # a helping process of `accelerate launch`
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


@app.command(rich_help_panel=COMPILE)
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
    from edgeicl.specs.catalog import find_recipe, load_recipe
    from edgeicl.specs.loading import dump_yaml

    if Path(subject).is_dir():
        manifest = open_artifact(Path(subject)).manifest
        print_json(plain(manifest)) if as_json else typer.echo(artifact_text(manifest))
        return
    recipe = load_recipe(subject)
    print_json(plain(recipe)) if as_json else typer.echo(
        recipe_text(recipe, dump_yaml(recipe), find_recipe(subject))
    )


@app.command(rich_help_panel=COMPILE)
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
def cache_list() -> None:
    """List stored stage outputs with their sizes, and what stopped builds left."""
    from edgeicl.report.tables import aligned
    from edgeicl.specs.byte_size import format_byte_size
    from edgeicl.store import cache_root
    from edgeicl.stored import stored

    rows = [
        (entry.stage, entry.digest, format_byte_size(entry.bytes), "" if entry.finished else "unfinished")
        for entry in stored(cache_root())
    ]
    typer.echo(f"{cache_root()}\n{aligned(('stage', 'digest', 'size', 'state'), rows)}")


@cache_app.command("clear")
def cache_clear() -> None:
    """Remove stored stage outputs, unless a build uses them; artifacts stay."""
    from edgeicl.store import cache_root
    from edgeicl.stored import clear

    removed, left = clear(cache_root())
    typer.echo(f"{cache_root()}: removed {removed} stage outputs" + f", left {left} half built" * bool(left))


def main(arguments: list[str] | None = None) -> None:
    """Runs a command; every failure becomes a message on stderr and an exit code."""
    try:
        app(args=arguments, prog_name="edgeicl")
    except EdgeiclError as error:
        _fail(f"error: {error}", error.exit_code)
    except Exception as error:
        hint = "next: run it again as `edgeicl --debug ...` and report what it shows"
        _fail(f"error: unexpected {type(error).__name__}: {error}\n{hint}", 1)


def _fail(message: str, exit_code: int) -> None:
    if log.isEnabledFor(logging.DEBUG):
        traceback.print_exc()
    if _prints():
        typer.echo(message, err=True)
    sys.exit(exit_code)


def _prints() -> bool:
    """Whether this process is the one of `accelerate launch` that speaks; ordinarily the only one."""
    alone = int(os.environ.get("WORLD_SIZE", "1")) <= 1
    return alone or int(os.environ.get("RANK", "0")) == 0
