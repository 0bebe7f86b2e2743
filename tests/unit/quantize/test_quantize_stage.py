"""The stage as a whole on a tiny student: files, reuse, budgets, plans, deviations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgeicl.errors import BudgetError, SpecError
from edgeicl.models.anatomy import EMBEDDING
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.loading import load_tokenizer
from edgeicl.models.model_folder import model_config
from edgeicl.numerics.affine import QuantizedMatrix, dequantize
from edgeicl.numerics.size import group_bytes, held_bytes, prefill_bytes
from edgeicl.quantize.budget import task_file_bytes, weight_budget
from edgeicl.quantize.offered_formats import offered_formats
from edgeicl.quantize.stage import quantize
from edgeicl.quantize.stored_weights import stored_values
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.curve import SizeCurve
from edgeicl.specs.importance import ImportanceTable
from edgeicl.specs.quant_plan import Format, QuantPlan
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.target import Target
from edgeicl.store import StageOutput, Store
from tests.unit.quantize.tiny_student import make_student

INT2, INT4, INT8 = ({"bits": bits, "block_size": 32} for bits in (2, 4, 8))
FP32 = {"bits": 32}
ALL = [INT2, INT4, INT8, FP32]

# The tiny student's groups take 7,296 bytes in int2, 12,160 in int4, 21,888 in int8 and 77,824 in fp32: a layer
# has 8,192 weights and the embedding 3,072. All that is no group takes some 46 kB.
LARGEST_BYTES = 200_000


def _recipe(**settings: Any) -> Recipe:
    source = {"source": "file:train.jsonl"}
    return Recipe.model_validate(
        {
            "version": 1,
            "name": "tiny",
            "task": {
                "pattern": "{text} answer:",
                "verbalizers": {"yes": " Yes", "no": " No"},
                "separator": "",
                "train": source,
                "in_domain": source,
            },
            "distill": {"method": "none", "student": {"model": "tiny"}},
            "quantize": {"calibration_examples": 8, **settings},
        }
    )


def _target(formats: list[dict[str, Any]], **budget: int) -> Target:
    return Target.model_validate(
        {
            "version": 1,
            "name": "phone",
            "description": "a phone",
            "threads": 1,
            "context_tokens": 16,
            "runtime_overhead_bytes": 1000,
            "formats": formats,
            "budget": budget,
            "sources": {},
        }
    )


def _run(
    student: Path, store: Path, target: Target, *, folder: Path | None = None, **settings: Any
) -> StageOutput:
    return quantize(
        _recipe(**settings),
        target,
        student=folder or student,
        student_digest="digest",
        store=Store(store),
        base_folder=student,
    )


def test_a_width_that_no_block_divides_is_filled_up() -> None:
    """172 is 4 times 43: such rows may have all formats, 64 only those whose blocks divide it."""
    sizes = {"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 1, "num_attention_heads": 4}
    groups = {g.name: g for g in anatomy_of({"model_type": "llama", "vocab_size": 96, **sizes}).groups}
    formats = [Format(bits=4, block_size=64), Format(bits=8, block_size=128), Format(bits=32)]
    assert offered_formats(groups["layers.0.mlp.down"], formats) == formats
    assert offered_formats(groups["layers.0.mlp.gate_up"], formats) == [formats[0], formats[2]]
    assert offered_formats(groups["layers.0.mlp.gate_up"], formats[1:2]) == formats[1:2]


def _artifact_bytes(student: Path, groups: int) -> int:
    """The artifact budget that leaves `groups` bytes for the weight groups."""
    task = _recipe().task
    budget, _ = weight_budget(
        _target(ALL, artifact_bytes=1),
        anatomy_of(model_config(student)),
        tokenizer_bytes=len(load_tokenizer(student).to_str().encode()),
        task_bytes=task_file_bytes(task.pattern, task.verbalizers, task.separator),
    )
    return budget.artifact_bytes(groups)


def _plan(output: StageOutput) -> QuantPlan:
    return QuantPlan.model_validate_json((output.path / "plan.json").read_bytes())


def _curve(output: StageOutput) -> SizeCurve:
    return SizeCurve.model_validate_json((output.path / "curve.json").read_bytes())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def test_weights_are_those_of_the_plan(student: Path, weights: StudentWeights, store: Path) -> None:
    output = _run(
        student, store, _target([*ALL, {"bits": 16}], artifact_bytes=_artifact_bytes(student, 15_000))
    )
    plan = _plan(output)
    stored = load_file(output.path / "weights.safetensors")
    formats = plan.formats()
    assert len({format_.bits for format_ in formats.values()}) > 1
    expected_names = set(weights.others)
    for group in weights.groups:
        name, format_ = group.name, formats[group.name]
        if format_.quantized:
            assert format_.block_size is not None
            matrix = dequantize(
                QuantizedMatrix(
                    stored[f"{name}.codes"], stored[f"{name}.scales"], None, format_.bits, format_.block_size
                )
            )
            expected_names |= {f"{name}.codes", f"{name}.scales"}
        else:
            matrix = stored[f"{name}.weight"].astype(np.float32)
            assert stored[f"{name}.weight"].itemsize * 8 == format_.bits
            expected_names.add(f"{name}.weight")
        assert np.array_equal(matrix, stored_values(weights.matrices[name], format_))
        if name in weights.biases:
            assert np.array_equal(stored[f"{name}.bias"], weights.biases[name])
            expected_names.add(f"{name}.bias")
    assert stored.keys() == expected_names


def test_the_plan_counts_every_byte_and_keeps_the_budget(
    student: Path, weights: StudentWeights, store: Path
) -> None:
    for limit in (_artifact_bytes(student, groups) for groups in (8_000, 15_000, 40_000)):
        plan = _plan(_run(student, store, _target(ALL, artifact_bytes=limit)))
        groups = sum(group_bytes(*g.shape, plan.formats()[g.name]) for g in weights.groups)
        others = sum(value.nbytes for value in (*weights.biases.values(), *weights.others.values()))
        others -= 2 * 32 * 4  # the two unused rows of the position table are not deployed
        assert plan.predicted_weight_bytes == groups + others
        assert plan.predicted_artifact_bytes <= limit
        held = sum(
            held_bytes(*g.shape, plan.formats()[g.name], looked_up=g.name == EMBEDDING) for g in weights.groups
        )
        assert (
            plan.predicted_resident_bytes
            == held + others + 2 * 2 * 32 * 4 * 16 + prefill_bytes(32, 64, 16) + 1000
        )


def test_memory_is_kept_within_both_limits(student: Path, weights: StudentWeights, store: Path) -> None:
    """What fits in the artifact may not fit in memory, where half precision is held in full."""
    formats = [*ALL, {"bits": 16}]
    files = _artifact_bytes(student, 40_000)
    roomy = _plan(_run(student, store, _target(formats, artifact_bytes=files)))
    limit = roomy.predicted_resident_bytes - 10_000
    tight = _plan(_run(student, store, _target(formats, artifact_bytes=files, resident_bytes=limit)))
    assert tight.predicted_resident_bytes <= limit < roomy.predicted_resident_bytes
    assert tight.predicted_artifact_bytes <= files


def test_curve_holds_the_chosen_and_the_uniform_plans(student: Path, store: Path) -> None:
    curve = _curve(_run(student, store, _target(ALL, artifact_bytes=_artifact_bytes(student, 15_000))))
    by_label = {point.label: point for point in curve.points}
    assert {f"uniform {f}" for f in ("int2/block32", "int4/block32", "int8/block32", "fp32")} <= by_label.keys()
    chosen, fp32 = by_label["chosen"], by_label["uniform fp32"]
    assert (fp32.predicted_loss, fp32.measured_loss) == (0, pytest.approx(0, abs=1e-12))
    assert chosen.measured_loss is not None
    assert 0 < chosen.measured_loss < 3 * chosen.predicted_loss
    allocated = [point for point in curve.points if point.kind == "allocated"]
    assert len(allocated) > 5
    losses = [point.predicted_loss for point in allocated]
    assert losses == sorted(losses, reverse=True)
    assert max(point.artifact_bytes for point in curve.points) == fp32.artifact_bytes


def test_sensitivity_beats_uniform_bits_at_equal_bytes(student: Path, store: Path) -> None:
    """Measured, on the whole model: the best plan of int4's size among 2, 4 and 8 bits against all-int4."""
    formats = [INT2, INT4, INT8]
    first = _curve(_run(student, store, _target(formats, artifact_bytes=LARGEST_BYTES)))
    uniform = next(point for point in first.points if point.label == "uniform int4/block32")
    second = _curve(_run(student, store, _target(formats, artifact_bytes=uniform.artifact_bytes)))
    chosen = next(point for point in second.points if point.kind == "chosen")
    assert chosen.artifact_bytes <= uniform.artifact_bytes
    assert chosen.measured_loss is not None
    assert uniform.measured_loss is not None
    assert chosen.measured_loss < 0.9 * uniform.measured_loss


def _entries(stage_folder: Path) -> list[str]:
    return sorted(path.name for path in stage_folder.iterdir() if path.suffix != ".lock")


def test_importance_is_measured_once_for_all_budgets(student: Path, tmp_path: Path) -> None:
    first = _run(student, tmp_path, _target([INT4, INT8], artifact_bytes=LARGEST_BYTES))
    importance = tmp_path / "importance"
    measured = _entries(importance)
    again = _run(student, tmp_path, _target([INT4, INT8], artifact_bytes=LARGEST_BYTES))
    other = _run(student, tmp_path, _target([INT4, INT8], artifact_bytes=_artifact_bytes(student, 15_000)))
    assert (first.reused, again.reused, other.reused) == (False, True, False)
    assert _entries(importance) == measured
    _run(student, tmp_path, _target([INT2, INT8], artifact_bytes=LARGEST_BYTES))
    assert len(_entries(importance)) == len(measured) + 1  # int2 alone is new


def test_an_edited_plan_is_used_as_it_is(student: Path, store: Path, tmp_path: Path) -> None:
    target = _target(ALL, artifact_bytes=LARGEST_BYTES)
    written = json.loads((_run(student, store, target).path / "plan.json").read_text())
    for entry, format_ in zip(written["groups"], [INT2, INT8] * 4 + [INT4], strict=True):
        entry["format"] = format_
    edited = tmp_path / "edited.json"
    edited.write_text(json.dumps(written, indent=1))
    output = _run(student, store, target, plan=str(edited))
    assert [entry.format.bits for entry in _plan(output).groups] == [2, 8] * 4 + [4]
    assert _plan(output).predicted_weight_bytes != written["predicted_weight_bytes"]

    taken = _plan(output).predicted_artifact_bytes
    with pytest.raises(
        BudgetError, match=rf"budget\.artifact_bytes is {taken - 1}.*the plan .*edited\.json takes"
    ):
        _run(student, store, _target(ALL, artifact_bytes=taken - 1), plan=str(edited))
    with pytest.raises(SpecError, match="4 problems"):
        _run(student, store, _target([INT4, INT8], artifact_bytes=LARGEST_BYTES), plan=str(edited))


def test_a_budget_that_is_too_small_is_refused_before_any_work(student: Path, tmp_path: Path) -> None:
    with pytest.raises(
        BudgetError, match=r"target phone: budget\.artifact_bytes is 20000 .*smallest plan"
    ) as caught:
        _run(student, tmp_path, _target(ALL, artifact_bytes=20_000))
    assert list(tmp_path.iterdir()) == []
    exact = caught.value.smallest_bytes
    assert str(exact) in str(caught.value)
    output = _run(student, tmp_path, _target(ALL, artifact_bytes=exact))
    assert {format_.bits for format_ in _plan(output).formats().values()} == {2}
    with pytest.raises(BudgetError):
        _run(student, tmp_path, _target(ALL, artifact_bytes=exact - 1))


def test_a_format_that_does_not_fit_a_group_is_not_offered_there(tmp_path: Path) -> None:
    folder = make_student(tmp_path, ffn_dim=48)
    (folder / "train.jsonl").write_text('{"text": "w1", "label": "yes"}\n')
    target = _target([INT4, {"bits": 8, "block_size": 16}], artifact_bytes=LARGEST_BYTES)
    output = _run(folder, tmp_path / "store", target)
    formats = _plan(output).formats()
    assert {str(formats[f"layers.{i}.mlp.down"]) for i in range(2)} == {"int8/block16"}
    # What a target offers is no request: that some of it fits nothing here is no deviation.
    assert json.loads((output.path / "deviations.json").read_text()) == []
    filled_up = _run(folder, tmp_path / "store", _target([INT4], artifact_bytes=LARGEST_BYTES))
    scales = load_file(filled_up.path / "weights.safetensors")["layers.0.mlp.down.scales"]
    assert scales.shape == (32, 2)  # 48 weights are two blocks of 32


@pytest.mark.parametrize("method", ["jaccard", "cosine"])
def test_more_bits_for_the_block_that_says_more(student: Path, store: Path, method: str) -> None:
    seen = set()
    for groups in (12_160, 15_000, 17_000, 19_000, 21_888):
        target = _target([INT4, INT8], artifact_bytes=_artifact_bytes(student, groups))
        output = _run(student, store, target, importance=method)
        plan, table = _plan(output), json.loads((output.path / "importance.json").read_text())
        of_blocks = ImportanceTable.model_validate(table).blocks
        assert of_blocks is not None
        bits = [
            {entry.format.bits for entry in plan.groups if entry.group.startswith(f"layers.{i}.")}
            for i in (0, 1)
        ]
        assert [len(found) for found in bits] == [1, 1]
        assert plan.groups[0].importance == of_blocks[0]
        assert of_blocks[0] > of_blocks[1]
        seen.add((*bits[0], *bits[1]))
    assert seen == {(4, 4), (8, 4), (8, 8)}  # never more bits for the layer that says less


def test_same_inputs_give_the_same_bytes(student: Path, tmp_path: Path) -> None:
    target = _target(ALL, artifact_bytes=_artifact_bytes(student, 15_000))
    one, other = (_run(student, tmp_path / name, target) for name in ("a", "b"))
    for name in ("weights.safetensors", "plan.json", "curve.json", "importance.json"):
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes()
