"""Names after `builtin:` that a recipe may use; `tasks` and `models` hold what they stand for."""

from __future__ import annotations

from typing import Literal, get_args

from edgeicl.specs.nearest import one_of

FAMILY = "nli"
TaskName = Literal["entailment", "doubt", "animal", "today", "action"]
TASKS: tuple[str, ...] = get_args(TaskName)
SPLITS = ("train", "validation", "test", "out_of_domain", "out_of_domain_train")
MODELS = ("nli-student", "nli-teacher")


def check_task(name: str) -> None:
    """ValueError unless `name` is `nli` or `nli/TASK`."""
    family, _, task = name.partition("/")
    if family != FAMILY:
        raise ValueError(f"no built-in source '{family}'; {one_of(family, [FAMILY])}")
    if task and task not in TASKS:
        raise ValueError(f"no built-in task '{task}'; {one_of(task, TASKS)}")


def check_split(split: str) -> None:
    """ValueError unless the built-in sources have `split`."""
    if split not in SPLITS:
        raise ValueError(f"no split '{split}' of a built-in source; {one_of(split, SPLITS)}")


def check_model(name: str) -> None:
    """ValueError unless there is such a built-in model."""
    if name not in MODELS:
        raise ValueError(f"no built-in model '{name}'; {one_of(name, MODELS)}")
