"""The tokens that stages are said to send through models, beside those that they do send."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from transformers.models.opt.modeling_opt import OPTModel

from edgeicl.distill import task_run
from edgeicl.distill.context_task import ContextTask
from edgeicl.distill.passes_ahead import checked_tokens, passes_ahead
from edgeicl.distill.stage import distill
from edgeicl.distill.task_run import TaskRun
from edgeicl.specs.recipe import Recipe
from edgeicl.store import Store
from tests.unit.distill.test_distill_stage import changed

Counted = Counter[tuple[str, bool, bool]]
"""Tokens by stage, whether the model is the teacher, and whether it is trained."""


@pytest.fixture
def counted(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Counted:
    """Of a whole run; the teacher has two layers, the student one."""
    found: Counted = Counter()
    running = [""]
    stage, forward = task_run.TaskRun.stage, OPTModel.forward

    def named(self: TaskRun, built: str, *args: object, **options: object) -> object:
        running.append(built)
        try:
            return stage(self, built, *args, **options)  # type: ignore[arg-type]
        finally:
            running.pop()

    def counting(self: OPTModel, *args: object, **options: object) -> object:
        ids, mask = options["input_ids"], options.get("attention_mask")
        assert isinstance(ids, torch.Tensor)
        tokens = ids.numel()  # of rows that lie one behind the other, with a mask of pairs
        if isinstance(mask, torch.Tensor) and mask.ndim == 2:
            tokens = int(mask[:, -ids.shape[1] :].sum())
        found[running[-1], self.config.num_hidden_layers == 2, torch.is_grad_enabled()] += tokens
        return forward(self, *args, **options)

    monkeypatch.setattr(task_run.TaskRun, "stage", named)
    monkeypatch.setattr(OPTModel, "forward", counting)
    distill(recipe, store=Store(tmp_path / "store"), base_folder=tmp_path)
    return found


def test_tokens_of_every_stage_are_those_that_are_sent(
    recipe: Recipe, tmp_path: Path, counted: Counted
) -> None:
    run = TaskRun(recipe, Store(tmp_path), tmp_path)
    expected: Counted = Counter()
    for stage, passes in passes_ahead(run) or []:
        for one in passes:
            expected[stage, one.folder == run.teacher_folder, one.trains] += int(one.tokens)
    assert expected["teacher-targets", True, False] == 0  # the gain is measured on as many
    for key, tokens in expected.items():
        assert counted[key] == pytest.approx(tokens, rel=0.2), key  # padding, leading tokens
    # What isn't expected at all: the held-out examples of each training.
    beside = sum(counted.values()) - sum(counted[key] for key in expected)
    assert beside < 0.05 * sum(expected.values())


def test_targets_are_of_what_the_gain_was_not_measured_on(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 60 examples, with the first 40 known: 20 behind each of two sets of demonstrations, and the sets."""
    monkeypatch.setattr("edgeicl.distill.passes_ahead.GAIN_EXAMPLES", 40)
    run = TaskRun(recipe, Store(tmp_path), tmp_path)
    task = ContextTask(run)
    (passes,) = dict(passes_ahead(run) or [])["teacher-targets"]
    assert len(task.queries) == 60
    assert passes.tokens == 2 * sum(map(len, task.queries[40:])) + sum(map(len, task.contexts.values()))


def test_methods_that_are_not_counted_say_so(recipe: Recipe, tmp_path: Path) -> None:
    text = tmp_path / "some.txt"
    text.write_text("Plain text.\n\nMore of it.")
    objective = recipe.distill.objective.model_dump() | {"lm": 0.5}
    asked = changed(recipe, objective=objective, text={"source": f"file:{text}"})
    assert passes_ahead(TaskRun(asked, Store(tmp_path), tmp_path)) is None
    none = changed(recipe, method="none", teacher=None)
    assert [name for name, _ in passes_ahead(TaskRun(none, Store(tmp_path), tmp_path)) or []] == [
        "student",
        "evaluation",
    ]


def test_as_many_prompts_are_checked_as_the_recipe_allows(recipe: Recipe, tmp_path: Path) -> None:
    run = TaskRun(recipe, Store(tmp_path), tmp_path)
    everything = sum(map(len, run.predictor.queries))
    assert checked_tokens(run) == everything
    recipe = recipe.model_copy(update={"limits": recipe.limits.model_copy(update={"accuracy_examples": 15})})
    assert checked_tokens(TaskRun(recipe, Store(tmp_path), tmp_path)) == everything / 2
