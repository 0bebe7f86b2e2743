"""A recipe of method mend for tiny models, and what it trains on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeicl.distill.mend_data import MendData
from edgeicl.distill.task_run import TaskRun
from edgeicl.specs.recipe import Recipe
from edgeicl.store import Store


def mend_recipe(recipe: Recipe, student: Path, hypernetwork: Path, **changes: Any) -> Recipe:
    mend = {
        "hypernetwork": {"model": str(hypernetwork)},
        "vectors": 3,
        "on_text": {"steps": 4, "batch_size": 2, "learning_rate": 1e-2},
        "on_tasks": {"steps": 4, "batch_size": 2, "queries": 3, "learning_rate": 1e-2},
        "tasks": [{"train": {"source": "builtin:nli/animal", "split": "train", "limit": 80}}],
    }
    written = recipe.model_dump(exclude={"distill": {"teacher", "objective"}})
    written["distill"] |= {
        "method": "mend",
        "student": {"model": str(student)},
        "text": {"source": "builtin:nli", "split": "train", "limit": 20},
        "mend": mend | changes,
    }
    return Recipe.model_validate(written)


def material(wanted: Recipe, folder: Path) -> MendData:
    run, mend = TaskRun(wanted, Store(folder), folder), wanted.distill.mend
    assert mend is not None
    return MendData(run, mend, Path(mend.hypernetwork.model))
