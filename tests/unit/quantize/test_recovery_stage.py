"""The recover stage on a tiny student: its files, its key, a kill, what it refuses and what it tells."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeicl.errors import DataError
from edgeicl.models.anatomy import LABEL_HEAD
from edgeicl.quantize import recovery, recovery_stage
from edgeicl.quantize.recovery_stage import recovered
from edgeicl.quantize.stage import quantize
from edgeicl.specs.curve import SizeCurve
from edgeicl.specs.prefix import write_prefix_source
from edgeicl.specs.recipe import Recipe
from edgeicl.store import StageOutput, Store, folder_hashes
from edgeicl.tasks.label_targets import LabelTargets
from tests.unit.quantize.test_quantize_stage import FP32, INT2, LARGEST_BYTES, _recipe, _target

QUICK = {"steps": 8, "batch_size": 8, "learning_rate": 0.03}


@pytest.fixture(scope="module")
def data(student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training texts, of which two are evaluated."""
    folder = tmp_path_factory.mktemp("data")
    rows = [{"text": f"w{i} w{(7 * i) % 90}", "label": "yes" if i % 2 else "no"} for i in range(60)]
    for name, part in (("train", rows), ("test", rows[:2])):
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in part) + "\n")
    (folder / "text.txt").write_text("\n\n".join(f"w{i} w3 w{i % 7} w5" for i in range(90)))
    return folder


def recipe(head: str = "full", **settings: Any) -> Recipe:
    values = _recipe(recover={**QUICK, **settings.pop("recover", {})}, **settings).model_dump(mode="json")
    values["task"]["in_domain"] = {"source": "file:test.jsonl"}
    values["emit"]["head"] = head
    return Recipe.model_validate(values)


def run(
    student: Path,
    data: Path,
    store: Path,
    made: Recipe,
    *,
    targets: LabelTargets | None = None,
    prefix: Path | None = None,
    format_: dict[str, Any] = INT2,
) -> tuple[StageOutput, StageOutput]:
    """What the quantize stage gives, and the recover stage."""
    target = _target([format_], artifact_bytes=LARGEST_BYTES)
    plan = quantize(
        made,
        target,
        student=student,
        student_digest="digest",
        store=Store(store),
        base_folder=data,
        prefix=prefix,
    )
    assert made.quantize.recover is not None
    found = recovered(
        made,
        made.quantize.recover,
        student=student,
        student_digest="digest",
        quantized=plan,
        targets=targets,
        store=Store(store),
        base_folder=data,
        prefix=prefix,
    )
    return plan, found


def deviations(output: StageOutput) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads((output.path / "deviations.json").read_text())
    return found


def answers(student: Path, *, shift: float = 0.0) -> LabelTargets:
    rows = np.random.default_rng(0).integers(3, 90, size=(40, 6)).tolist()
    yes = np.random.default_rng(1).uniform(0.1, 0.9, size=40) * (1 - shift)
    found = np.log(np.stack([yes, 1 - yes], -1)).astype(np.float32)
    return LabelTargets(rows, found, "verbalizers", f"shift {shift}")


def test_files_are_those_of_the_plan_with_other_weights(student: Path, data: Path, tmp_path: Path) -> None:
    text = {"source": "file:text.txt"}
    made = recipe(recover={"own_texts": 16, "text_blocks": 8}, calibration_text=text)
    plan, found = run(student, data, tmp_path, made)
    assert {path.name for path in found.path.iterdir()} == {path.name for path in plan.path.iterdir()}
    assert (found.path / "plan.json").read_bytes() == (plan.path / "plan.json").read_bytes()
    before, after = (load_file(output.path / "weights.safetensors") for output in (plan, found))
    assert {name: (v.dtype, v.shape) for name, v in after.items()} == {
        name: (v.dtype, v.shape) for name, v in before.items()
    }
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert {"embedding.codes", "embedding.scales", "layers.0.mlp.up.codes", "layers.0.mlp.up.bias"} <= changed
    curve = SizeCurve.model_validate_json((found.path / "curve.json").read_bytes())
    assert curve.recovery is not None
    assert curve.recovery.best_step > 0
    # 58 queries, 8 blocks of text and 16 texts of its own, of which 7 + 1 + 2 are held out.
    assert (curve.recovery.sequences, curve.recovery.held_out) == (72, 10)
    (told,) = [entry for entry in deviations(found) if entry["what"] == "training examples"]
    assert (told["asked"], told["got"]) == ("60", "58")


def test_a_killed_stage_ends_with_the_same_bytes(
    student: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = recipe(recover={"own_texts": 8})
    _, whole = run(student, data, tmp_path / "one", made)
    note = recovery._save

    def dies(folder: Path, course: Any, *state: Any) -> None:
        note(folder, course, *state)
        if course.judged[-1].step == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(recovery, "_save", dies)
        with pytest.raises(KeyboardInterrupt):
            run(student, data, tmp_path / "two", made)
    judged: list[int] = []
    look = recovery._judged

    def counted(*arguments: Any, step: int) -> Any:
        judged.append(step)
        return look(*arguments, step=step)

    monkeypatch.setattr(recovery, "_judged", counted)
    monkeypatch.setattr(recovery_stage, "own_texts", None)  # they are kept
    _, resumed = run(student, data, tmp_path / "two", made)
    assert judged == [4, 5, 6, 7, 8]
    assert folder_hashes(resumed.path) == folder_hashes(whole.path)


def test_the_key_changes_with_whatever_changes_the_result(student: Path, data: Path, tmp_path: Path) -> None:
    settings = [
        (recipe(), None),
        (recipe(recover={"learning_rate": 0.02}), None),
        (recipe(recover={"queries": 20}), None),
        (recipe(), answers(student)),
        (recipe(), answers(student, shift=0.1)),
    ]
    outputs = [run(student, data, tmp_path, made, targets=targets)[1] for made, targets in settings]
    assert len({output.digest for output in outputs}) == len(settings)
    again = run(student, data, tmp_path, recipe(), targets=answers(student))[1]
    assert again.reused
    judged = SizeCurve.model_validate_json((again.path / "curve.json").read_bytes()).recovery
    assert judged is not None
    assert judged.judged[0].kl_to_teacher is not None


@pytest.mark.parametrize("kind", ["tokens", "vectors"])
def test_behind_a_prefix_of_several_sets(student: Path, data: Path, tmp_path: Path, kind: str) -> None:
    draw = np.random.default_rng(2)
    sets = [draw.integers(3, 90, size=5), draw.integers(3, 90, size=3)]
    if kind == "vectors":
        sets = [draw.normal(size=(4, 32)).astype(np.float32) for _ in range(2)]
    write_prefix_source(tmp_path / "prefix.safetensors", sets)
    _, found = run(student, data, tmp_path / "store", recipe(), prefix=tmp_path / "prefix.safetensors")
    judged = SizeCurve.model_validate_json((found.path / "curve.json").read_bytes()).recovery
    assert judged is not None
    assert judged.best_step > 0


def test_the_head_of_labels_stays_as_it_is(student: Path, data: Path, tmp_path: Path) -> None:
    plan, found = run(student, data, tmp_path, recipe("verbalizers"), targets=answers(student))
    before, after = (load_file(output.path / "weights.safetensors") for output in (plan, found))
    assert np.array_equal(before[LABEL_HEAD], after[LABEL_HEAD])
    assert not np.array_equal(before["embedding.codes"], after["embedding.codes"])


@pytest.mark.parametrize("why", ["at none of 8 looks", "no weight is rounded"])
def test_what_was_not_made_better_is_told(student: Path, data: Path, tmp_path: Path, why: str) -> None:
    harmful = recipe(recover={"learning_rate": 100.0})
    plan, found = run(student, data, tmp_path, harmful, format_=INT2 if "looks" in why else FP32)
    name = "weights.safetensors"
    assert (found.path / name).read_bytes() == (plan.path / name).read_bytes()
    (told,) = [entry for entry in deviations(found) if entry["what"] == "recovery"]
    assert why in told["why"]


def test_too_few_texts_are_refused(student: Path, data: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(data / "test.jsonl", few)
    lines = (data / "train.jsonl").read_text().splitlines()[:6]
    (few / "train.jsonl").write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"found 4 texts of task\.train .*; expected at least 8"):
        run(student, few, tmp_path / "store", recipe())
