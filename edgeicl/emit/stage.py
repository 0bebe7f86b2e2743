"""The emit stage: writes the artifact's files and publishes them only if every check passes."""

from __future__ import annotations

from pathlib import Path

from edgeicl.emit.checked_examples import checked_examples
from edgeicl.emit.emission import Emission
from edgeicl.emit.exported.export import exported
from edgeicl.emit.generation_checks import genai_version
from edgeicl.emit.optimum_check import optimum_versions
from edgeicl.emit.provider import cuda_available
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.model_folder import model_config, weights_digest
from edgeicl.specs.prefix import read_prefix_source
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.target import Target
from edgeicl.store import StageOutput, Store, file_sha256
from edgeicl.tasks.examples_digest import examples_digest


def emit(
    recipe: Recipe,
    target: Target,
    *,
    student: Path,
    quantized: StageOutput,
    store: Store,
    base_folder: Path,
    prefix: Path | None = None,
) -> StageOutput:
    """The artifact's files and `checks.json`, from the quantized weights of `student`.

    `prefix` is a file of `specs.prefix`: what stands before every query.

    Raises:
        DataError: a model that there is no graph for, or data that can't be used.
        BudgetError: the files take more than the target's artifact budget.
        ParityError, QualityError: the artifact computes something else, or is worse than the recipe allows.
    """
    data = checked_examples(recipe, base_folder)
    inputs = {
        "quantized": quantized.digest,
        "student": weights_digest(student),
        "task": recipe.task.model_dump(mode="json", include={"pattern", "verbalizers", "separator", "score"}),
        "data": examples_digest(data.items()),
        "emit": recipe.emit.model_dump(mode="json"),
        "limits": recipe.limits.model_dump(mode="json"),
        "seed": recipe.seed,
        "target": target.model_dump(mode="json", include={"context_tokens", "threads", "budget", "provider"}),
        "genai": genai_version(),
        "cuda": target.provider == "cuda" and cuda_available(),
        "optimum": optimum_versions(),
        "prefix": prefix and file_sha256(prefix),
    }
    export: Path | None = None
    if anatomy_of(model_config(student)).exported:
        output = exported(student, store=store)
        export, inputs["export"] = output.path, output.digest

    def build(folder: Path) -> None:
        sets = read_prefix_source(prefix) if prefix else []
        Emission(recipe, target, student, quantized.path, data, sets, folder, export).run()

    return store.run("emit", inputs, build)
