"""The project's headline as a command: the artifact without demonstrations beside the teacher with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeicl.arguments import (
    AcceptNoiseOption,
    ArtifactArgument,
    JsonOption,
    MostRoundsOption,
    ThreadsOption,
    plain,
    print_json,
    threads_for,
)
from edgeicl.errors import DataError, Problem, SpecError

if TYPE_CHECKING:
    from edgeicl.specs.recipe import Recipe

RUNTIME = "Runtime"
_RECIPE_FILE = "recipe.resolved.yaml"

headline_app = typer.Typer()


@headline_app.command(rich_help_panel=RUNTIME)
def headline(
    artifact: ArtifactArgument,
    recipe: Annotated[
        str | None,
        typer.Option(metavar="RECIPE", help="Recipe of teacher and data; the artifact's own unless given."),
    ] = None,
    teacher: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Hub name, folder or builtin:NAME; the recipe's.")
    ] = None,
    demonstrations: Annotated[int, typer.Option(min=1, help="Demonstrations that the teacher sees.")] = 16,
    seed: Annotated[
        int | None, typer.Option(help="Of the demonstrations; that of the deployed student unless given.")
    ] = None,
    precision: Annotated[
        str, typer.Option(metavar="A,B", help="Of the teacher: fp32, bf16 or both.")
    ] = "fp32,bf16",
    queries: Annotated[int, typer.Option(min=1, help="Queries of each evaluation data set.")] = 100,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, each of one process of everyone.")] = 5,
    most_rounds: MostRoundsOption = 10,
    threads: ThreadsOption = None,
    python: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Python that has transformers and torch; this one.")
    ] = None,
    install: Annotated[
        bool, typer.Option("--install", help="Make the teacher's environment with pip, in the cache.")
    ] = False,
    accept_noise: AcceptNoiseOption = False,
    as_json: JsonOption = False,
) -> None:
    """Measure the artifact beside the teacher with demonstrations, on the same queries.

    The teacher is run by transformers in each precision, with its demonstrations read anew with each query and
    with their keys and values computed once. Exit code 9 if one of these could not be measured, or if rounds
    disagree or other processes were at work; figures are printed all the same. Interrupted, the same command
    goes on from the last whole round.
    """
    from edgeicl.bench.headline.compare_teacher import headline as measure
    from edgeicl.bench.noise import require_no_doubt
    from edgeicl.cache_lock import in_use
    from edgeicl.errors import BenchError
    from edgeicl.models.model_folder import model_folder
    from edgeicl.report.terminal import headline_text
    from edgeicl.store import Store, cache_root

    precisions = _precisions(precision)
    described, base_folder = _recipe_of(artifact, recipe)
    name = teacher or (described.distill.teacher.model if described.distill.teacher else None)
    if name is None:
        problem = Problem("--teacher", f"the recipe {described.name} has no teacher", "expected a model")
        raise SpecError("headline", [problem], next_step="name one with --teacher")
    sources: dict[str, Any] = {"in_domain": described.task.in_domain}
    if described.task.out_of_domain:
        sources["out_of_domain"] = described.task.out_of_domain
    with in_use(cache_root()):
        found = measure(
            artifact,
            teacher=model_folder(name, base_folder=Path.cwd() if teacher else base_folder),
            teacher_name=name,
            sources=sources,
            shown=_shown(artifact, described, count=demonstrations, seed=seed),
            base_folder=base_folder,
            store=Store(cache_root()),
            threads=threads_for(artifact, threads),
            queries=queries,
            rounds=rounds,
            most_rounds=most_rounds,
            precisions=precisions,
            python=python.absolute() if python else None,
            install=install,
        )
    print_json(plain(found)) if as_json else typer.echo(headline_text(found))
    if not accept_noise:
        require_no_doubt(found.doubts)
    if found.not_measured:
        raise typer.Exit(BenchError.exit_code)


def _recipe_of(artifact: Path, given: str | None) -> tuple[Recipe, Path]:
    """The recipe of teacher and data, and the folder that its paths start at."""
    from edgeicl.specs.catalog import find_recipe, load_recipe

    own = artifact / _RECIPE_FILE
    if given is None and not own.is_file():
        raise DataError(
            f"{artifact} has no {_RECIPE_FILE}, so nothing says which teacher and which queries",
            next_step="name the recipe that it was compiled from with --recipe",
        )
    path = find_recipe(given or str(own))
    return load_recipe(str(path)), path.parent


def _shown(artifact: Path, recipe: Recipe, *, count: int, seed: int | None) -> Any:
    """Demonstrations as the recipe draws them, of the deployed student's seed unless another is given."""
    from edgeicl.bench.artifact import open_artifact
    from edgeicl.bench.headline.questions import Shown

    settings = recipe.distill.demonstrations
    if seed is None:
        evaluation = open_artifact(artifact).manifest.evaluation
        deployed = evaluation.deployed_seed if evaluation else None
        seed = settings.seeds[0] if deployed is None else deployed
    source = settings.source.for_seed(seed) if settings.source else recipe.task.train
    return Shown(source, count, settings.balanced, seed)


def _precisions(text: str) -> Any:
    """SpecError that lists whatever is no precision."""
    from edgeicl.bench.headline.side import PRECISIONS

    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    expected = f"expected {' or '.join(PRECISIONS)}"
    problems = [Problem("--precision", repr(name), expected) for name in names if name not in PRECISIONS]
    if problems or not names:
        raise SpecError("headline", problems or [Problem("--precision", "none", expected)])
    return names
