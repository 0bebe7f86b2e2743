"""The commands of the recipe layer, but for `compile`: they look at recipes, and train the built-in models."""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgeicl.arguments import (
    JsonOption,
    RecipeArgument,
    SetOption,
    TargetOption,
    TargetSetOption,
    plain,
    print_json,
)
from edgeicl.errors import Problem, SpecError

RECIPE = "Recipe"

log = logging.getLogger(__name__)

recipe_app = typer.Typer()


@recipe_app.command(rich_help_panel=RECIPE)
def check(
    recipe: RecipeArgument,
    target: TargetOption = None,
    overrides: SetOption = None,
    target_overrides: TargetSetOption = None,
    show: Annotated[
        bool, typer.Option("--show", help="Print the recipe with every default written out.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a recipe and its targets; list every problem at once."""
    from edgeicl.job import resolve
    from edgeicl.specs.loading import dump_yaml

    try:
        job = resolve(
            recipe,
            targets=target or (),
            recipe_overrides=overrides or (),
            target_overrides=target_overrides or (),
            builds=False,
        )
    except SpecError as error:
        if as_json:
            print_json({"problems": [{"file": file, **asdict(found)} for file, found in error.placed]})
        raise
    if as_json:
        targets = [plain(target) for target in job.targets]
        print_json({"problems": [], "recipe": plain(job.recipe), "targets": targets})
    elif show:
        typer.echo(dump_yaml(job.recipe).rstrip())
    else:
        names = ", ".join(target.name for target in job.targets)
        typer.echo(f"{job.recipe_path}: nothing wrong; targets: {names}")
        log.info("data was not read: `edgeicl plan` with the same arguments reads it, as a build does first")


@recipe_app.command(rich_help_panel=RECIPE)
def schema(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="recipe, target or plan.", show_default=False)],
) -> None:
    """Print the JSON Schema of recipes, targets or plans, for editors."""
    from edgeicl.specs.nearest import one_of
    from edgeicl.specs.schema_export import WRITTEN_SPECS, json_schema

    if kind not in WRITTEN_SPECS:
        raise SpecError("schema", [Problem("KIND", repr(kind), one_of(kind, WRITTEN_SPECS))])
    print_json(json_schema(kind))


@recipe_app.command(rich_help_panel=RECIPE)
def pretrain(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="Pretraining recipe, or the name of a shipped one.", show_default=False
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the model.", show_default=False)],
    overrides: SetOption = None,
) -> None:
    """Train a small model from nothing: a built-in one anew, or one on real text (`kind: text`)."""
    from edgeicl.distill.pretrain import pretrain as train
    from edgeicl.distill.text_pretraining import pretrain_on_text
    from edgeicl.specs.catalog import find_pretraining, load_pretraining
    from edgeicl.specs.text_pretraining import TextPretraining

    path = find_pretraining(recipe)
    loaded = load_pretraining(path, overrides or (), with_data=True)
    if isinstance(loaded, TextPretraining):
        print_json(pretrain_on_text(loaded, output, base_folder=path.parent))
    else:
        print_json(train(loaded, output))


@recipe_app.command("teacher-speed", rich_help_panel=RECIPE)
def teacher_speed(
    recipe: RecipeArgument,
    queries: Annotated[int, typer.Option(min=1, help="Transfer examples to score.")] = 64,
    plain_queries: Annotated[int, typer.Option(min=1, help="Of them, how many the plain way too.")] = 8,
    overrides: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure what the teacher's targets cost, beside full prompts with all logits, by turns."""
    from edgeicl.distill.teacher_speed import teacher_speed as measure
    from edgeicl.report.terminal import teacher_speed_text
    from edgeicl.specs.catalog import find_recipe, load_recipe
    from edgeicl.store import Store, cache_root

    result = measure(
        load_recipe(recipe, overrides or (), with_data=True),
        store=Store(cache_root()),
        base_folder=find_recipe(recipe).parent,
        queries=queries,
        plain_queries=plain_queries,
    )
    print_json(plain(result)) if as_json else typer.echo(teacher_speed_text(result))
