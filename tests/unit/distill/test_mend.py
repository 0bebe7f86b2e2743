"""Method mend from a recipe, with tiny random models: what is trained, what is kept, what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from transformers import OPTForCausalLM

from edgeicl.distill import mend_training
from edgeicl.distill.compression import best_sets, read_vectors
from edgeicl.distill.hypernetwork import PARTS, compress, load_hypernetwork, new_hypernetwork
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.scoring import score_queries
from edgeicl.distill.stage import distill
from edgeicl.distill.task_run import TaskRun
from edgeicl.distill.trainer import TrainingSettings
from edgeicl.errors import DataError, EdgeiclError
from edgeicl.specs.prefix import read_prefix_source
from edgeicl.specs.recipe import Recipe
from edgeicl.store import SingleProcess, Store
from tests.killed_training import counted_steps, killed_before
from tests.trained_weights import ROUNDING, relative_difference, weights_in
from tests.unit.distill.conftest import tiny_opt
from tests.unit.distill.mend_recipe import material, mend_recipe
from tests.unit.distill.two_processes import distilled_by_two

REPOSITORY = Path(__file__).parents[3]
SETTINGS = TrainingSettings(learning_rate=1e-2, epochs=1, batch_size=2, checkpoint_every_steps=2)


@pytest.fixture
def wanted(recipe: Recipe, model_folders: tuple[Path, Path]) -> Recipe:
    """The larger model is the frozen one, the smaller the hypernetwork."""
    return mend_recipe(recipe, *model_folders)


def test_the_whole_method_and_its_second_run(wanted: Recipe, tmp_path: Path) -> None:
    result = distill(wanted, store=Store(tmp_path), base_folder=tmp_path)
    source = Path(wanted.distill.student.model)
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (result.student, source))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)

    assert result.prefix is not None
    assert result.compressor is not None
    (deployed,) = read_prefix_source(result.prefix)
    assert deployed.shape == (3, 32)
    assert deployed.dtype == np.float32
    outputs = dict(result.outputs)
    record = json.loads((outputs["vectors"].path / "compression.json").read_text())
    losses = {int(seed): loss for seed, loss in record["held_out_cross_entropy"].items()}
    assert result.evaluation.deployed_seed == min(losses, key=lambda seed: losses[seed])
    sets = read_vectors(outputs["vectors"].path)
    np.testing.assert_array_equal(sets[[*losses].index(record["deployed"][0])], deployed)

    rows = {(row.method, row.data): row for row in result.evaluation.rows}
    methods = {"zero-shot student", "in-context student", "pattern-based fine-tuning", "MEND"}
    assert {method for method, _ in rows} == methods
    assert len(rows["MEND", "in_domain"].accuracy.values) == 2
    tested = {(test.method, test.baseline, test.data) for test in result.evaluation.paired_tests}
    assert tested == {
        ("MEND", baseline, data) for baseline in methods - {"MEND"} for data in ("in_domain", "out_of_domain")
    }
    cost = result.evaluation.query_cost
    assert cost is not None
    assert cost.prefix_tokens == 3
    assert 0 < cost.prefix_flops < cost.plain_flops

    again = distill(wanted, store=Store(tmp_path), base_folder=tmp_path)
    assert all(output.reused for _, output in again.outputs)
    assert (again.prefix, again.evaluation) == (result.prefix, result.evaluation)


def test_each_stage_starts_from_the_one_before(
    recipe: Recipe, model_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    hardly = {"steps": 4, "batch_size": 2, "queries": 3, "learning_rate": 1e-9}
    wanted = mend_recipe(recipe, *model_folders, on_tasks=hardly)
    outputs = dict(distill(wanted, store=Store(tmp_path), base_folder=tmp_path).outputs)
    start, first, second = (
        load_file(folder / "model.safetensors")["model.decoder.layers.0.fc1.weight"]
        for folder in (
            model_folders[1],
            *(outputs[name].path / "compressor" for name in ("mend-on-text", "mend-on-tasks")),
        )
    )
    assert (first - start).abs().max() > 1e-3
    assert 0 < (second - first).abs().max() < 1e-6
    for stage in ("mend-on-text", "mend-on-tasks"):
        assert len(json.loads((outputs[stage].path / "losses.json").read_text())) == 4


def test_several_sets_are_deployed_and_vote(
    recipe: Recipe, model_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    result = distill(mend_recipe(recipe, *model_folders, votes=2), store=Store(tmp_path), base_folder=tmp_path)
    assert result.prefix is not None
    assert len(read_prefix_source(result.prefix)) == 2
    assert result.evaluation.deployed_seed is None
    assert "MEND, majority of the deployed sets" in {row.method for row in result.evaluation.rows}


def test_new_demonstrations_are_compressed_by_what_is_kept(wanted: Recipe, tmp_path: Path) -> None:
    result = distill(wanted, store=Store(tmp_path), base_folder=tmp_path)
    assert result.compressor is not None
    kept = load_hypernetwork(result.compressor)
    assert (result.compressor / PARTS).is_file()
    vectors = compress(kept, [0, 30, 31, 32])
    assert vectors.shape == (3, 32)
    assert np.abs(vectors - compress(kept, [0, 30, 31, 33])).max() > 1e-3


@pytest.mark.parametrize("step", [1, 3])
def test_a_killed_training_goes_on_to_the_same_bits(wanted: Recipe, tmp_path: Path, step: int) -> None:
    whole = distill(wanted, store=Store(tmp_path / "whole"), base_folder=tmp_path)
    with killed_before(4 + step):  # the first stage has four steps
        distill(wanted, store=Store(tmp_path / "killed"), base_folder=tmp_path)
    with counted_steps() as steps:
        resumed = distill(wanted, store=Store(tmp_path / "killed"), base_folder=tmp_path)
    assert steps[0] == step // 3 * 3  # a checkpoint every three steps
    for name in ("model.safetensors", PARTS):
        ours, theirs = ((result.compressor / name).read_bytes() for result in (resumed, whole))  # type: ignore[operator]
        assert ours == theirs


def test_gradients_reach_the_hypernetwork_alone(opt: Callable[..., OPTForCausalLM]) -> None:
    language_model = opt(seed=1)
    before = {name: value.clone() for name, value in language_model.state_dict().items()}
    made = new_hypernetwork(opt(seed=2, layers=1, width=16), vectors=2, width=32, start="normal", seed=0)
    start = {name: value.clone() for name, value in made.state_dict().items()}
    texts = [[0, *range(20 + n, 40 + n)] for n in range(6)]
    losses = mend_training.train_on_text(
        made, language_model, texts, context_share=0.8, steps=12, settings=SETTINGS, seed=0
    )
    assert len(losses) == 12
    assert losses[-1] < losses[0]
    assert all(value.grad is None for value in language_model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in language_model.state_dict().items())
    moved = {name for name, value in made.state_dict().items() if not torch.equal(value, start[name])}
    assert {"placeholders", "projection.weight", "projection.bias"} <= moved
    assert any(name.startswith("model.model.decoder.layers.0.self_attn") for name in moved)


def test_two_processes_train_the_same_hypernetwork(wanted: Recipe, tmp_path: Path) -> None:
    alone = distill(wanted, store=Store(tmp_path / "alone"), base_folder=tmp_path).compressor
    assert alone is not None
    ours, start = weights_in(alone), weights_in(Path(wanted.distill.mend.hypernetwork.model))  # type: ignore[union-attr]
    together = weights_in(distilled_by_two(wanted, tmp_path)["compressor"])
    assert relative_difference(ours, together, start) < ROUNDING
    # Negative control: the same with one more example a step.
    other = wanted.model_dump()
    other["distill"]["mend"]["on_tasks"]["queries"] = 4
    elsewhere = distill(Recipe.model_validate(other), store=Store(tmp_path / "other"), base_folder=tmp_path)
    assert elsewhere.compressor is not None
    assert relative_difference(ours, weights_in(elsewhere.compressor), start) > 100 * ROUNDING


def test_the_gain_is_that_of_the_tasks_score(
    recipe: Recipe, model_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    changed = recipe.model_dump()
    changed["task"] |= {"score": "mean", "verbalizers": {"entailment": " Yes", "contradiction": " Not at all"}}
    wanted = mend_recipe(Recipe.model_validate(changed), *model_folders)
    outputs = dict(distill(wanted, store=Store(tmp_path), base_folder=tmp_path).outputs)
    found = load_file(outputs["teacher-gain"].path / "targets.safetensors")["without"].numpy()
    encoder = TaskRun(wanted, Store(tmp_path), tmp_path).encoder
    queries, tokens = encoder.queries(material(wanted, tmp_path).target.scored), [*encoder.tokens.values()]
    by_mean, by_sum = (
        score_queries(LabelReader(tiny_opt(seed=1), score=score), queries, tokens, before=encoder.leading)
        for score in ("mean", "sum")
    )
    np.testing.assert_allclose(found, by_mean, atol=1e-4)
    assert np.abs(by_sum - found).max() > 1


def test_a_student_shared_by_fsdp_is_refused_before_any_work(wanted: Recipe, tmp_path: Path) -> None:
    shared = SingleProcess()
    shared.shards_teacher = True
    with pytest.raises(DataError, match="method mend under FSDP"):
        distill(wanted, store=Store(tmp_path / "cache", workers=shared), base_folder=tmp_path)
    assert not (tmp_path / "cache").exists()


def test_the_best_sets_and_a_diverged_hypernetwork() -> None:
    assert best_sets({0: 0.3, 1: 0.1, 2: 0.2}, count=2) == [1, 2]
    with pytest.raises(EdgeiclError, match="diverged"):
        best_sets({0: float("nan")}, count=1)


def test_a_hypernetwork_with_other_tokens_is_refused_before_any_work(
    recipe: Recipe, model_folders: tuple[Path, Path], tmp_path: Path
) -> None:
    other = shutil.copytree(model_folders[1], tmp_path / "other")
    tokens = json.loads((other / "tokenizer.json").read_text())
    vocab = tokens["model"]["vocab"]
    vocab["q"], vocab["z"] = vocab["z"], vocab["q"]
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    wanted = mend_recipe(recipe, model_folders[0], other)
    with pytest.raises(DataError, match=r"hypernetwork .*other and student .* have different tokenizers"):
        distill(wanted, store=Store(tmp_path / "cache"), base_folder=tmp_path)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vectors": 480}, r"longest demonstration set has \d+ tokens; .* reads 32 beside 480 vectors"),
        ({"load_in": "8bit"}, "8bit needs CUDA"),
    ],
)
def test_what_can_not_run_is_refused_before_any_work(
    recipe: Recipe, model_folders: tuple[Path, Path], tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        distill(mend_recipe(recipe, *model_folders, **changes), store=Store(tmp_path), base_folder=tmp_path)
    assert not list(tmp_path.rglob("stage.json"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mend": None}, "mend: missing; expected the section mend"),
        ({"teacher": {"model": "builtin:nli-teacher"}}, "teacher: given; expected none"),
        ({"objective": {"kl": 0.5}}, "objective: method mend does not read it"),
        ({"text": None}, "expected plain text in distill.text"),
    ],
)
def test_a_recipe_that_does_not_fit_the_method(wanted: Recipe, changes: dict[str, Any], message: str) -> None:
    written = wanted.model_dump()
    written["distill"] |= changes
    with pytest.raises(ValidationError, match=message):
        Recipe.model_validate(written)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tasks": []}, "tasks is empty and the target unseen"),
        (
            {"tasks": [{"train": {"source": "builtin:nli", "split": "train", "limit": 9, "seed": 3}}]},
            r"mend.tasks\[0\] reads builtin:nli \(train\), which is the target task",
        ),
        ({"votes": 3}, "expected at most the 2 demonstrations.seeds"),
        ({"on_text": {"steps": 0}, "on_tasks": {"steps": 0}}, "both 0"),
    ],
)
def test_a_section_that_can_not_be_trained_from(
    recipe: Recipe, model_folders: tuple[Path, Path], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        mend_recipe(recipe, *model_folders, **changes)
