"""A recipe whose paths hold wherever it is read from: what is written beside an artifact can be compiled."""

from __future__ import annotations

from pathlib import Path

from edgeicl.specs.local_path import local_path
from edgeicl.specs.recipe import Distill, Quantize, Recipe, Source, Task


def located(recipe: Recipe, base_folder: Path) -> Recipe:
    """`recipe` with every local path made absolute; names on a hub and of built-in things stay names."""

    def path_or_name(name: str) -> str:
        path = local_path(name, base_folder.resolve())
        return str(path.resolve()) if path.exists() else name

    def of_source(source: Source) -> Source:
        kind, _, name = source.source.partition(":")
        local = kind in ("file", "hub")
        return source.model_copy(update={"source": f"{kind}:{path_or_name(name)}"}) if local else source

    def of_task(task: Task) -> Task:
        away = task.out_of_domain and of_source(task.out_of_domain)
        return task.model_copy(
            update={
                "train": of_source(task.train),
                "in_domain": of_source(task.in_domain),
                "out_of_domain": away,
            }
        )

    def of_distill(distill: Distill) -> Distill:
        student = distill.student.model_copy(update={"model": path_or_name(distill.student.model)})
        teacher = distill.teacher and distill.teacher.model_copy(
            update={"model": path_or_name(distill.teacher.model)}
        )
        return distill.model_copy(update={"student": student, "teacher": teacher})

    def of_quantize(quantize: Quantize) -> Quantize:
        plan = quantize.plan and path_or_name(quantize.plan)
        return quantize.model_copy(update={"plan": plan})

    return recipe.model_copy(
        update={
            "task": of_task(recipe.task),
            "distill": of_distill(recipe.distill),
            "quantize": of_quantize(recipe.quantize),
            "targets": tuple(map(path_or_name, recipe.targets)),
        }
    )
