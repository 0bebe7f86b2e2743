"""A student that isn't held in memory gives what one gives that is, and its file is the library's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edgeicl.errors import IntegrityError
from edgeicl.models import checkpoint
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.plan_loss import PlanLoss
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.student_weights import StudentWeights, read_weights
from edgeicl.quantize.tensors_file import Announced, TensorsFile
from edgeicl.specs.quant_plan import Format
from tests.unit.quantize.test_quantize_stage import INT4, INT8, _artifact_bytes, _run, _target
from tests.unit.quantize.tiny_student import SEQUENCES
from tests.unit.tiny_models import make_model


@pytest.fixture
def nothing_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "HELD_BYTES", 0)


@pytest.mark.usefixtures("nothing_held")
@pytest.mark.parametrize("variant", ["gpt2", "llama"])
def test_matrices_are_read_anew_and_the_same(
    variant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_model(tmp_path, variant)
    streamed = read_weights(folder)
    monkeypatch.setattr(checkpoint, "HELD_BYTES", 10**9)
    held = read_weights(folder)
    assert streamed.streamed
    assert not held.streamed
    assert streamed.matrices.keys() == held.matrices.keys()
    for name, matrix in held.matrices.items():
        assert np.array_equal(streamed.matrices[name], matrix)
        assert streamed.matrices[name] is not streamed.matrices[name]


@pytest.mark.parametrize("solver", ["rtn", "gptq"])
def test_the_stage_writes_the_same_files(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, solver: str
) -> None:
    target = _target([INT4, INT8], artifact_bytes=_artifact_bytes(student, 15_000))
    written = []
    for held in (10**9, 0):
        monkeypatch.setattr(checkpoint, "HELD_BYTES", held)
        output = _run(student, tmp_path / str(held), target, solver=solver)
        written.append({path.name: path.read_bytes() for path in output.path.iterdir()})
    assert written[0] == written[1]
    tensors = load_file(output.path / "weights.safetensors")
    save_file(tensors, tmp_path / "library.safetensors")
    assert (tmp_path / "library.safetensors").read_bytes() == written[0]["weights.safetensors"]


@pytest.mark.usefixtures("nothing_held")
def test_near_a_plan_the_same_is_lost(student: Path, weights: StudentWeights) -> None:
    streamed = read_weights(student)
    plan = {group.name: Format(bits=4, block_size=16) for group in weights.groups}
    changed = {**plan, "embedding": Format(bits=2, block_size=16)}
    losses = []
    for one in (weights, streamed):
        decoder = CalibratedDecoder(one, SEQUENCES)
        loss = PlanLoss("rtn", one, decoder, Sensitivity(decoder))
        losses.append([loss(plan), loss.near(plan, changed)])
    assert losses[0] == losses[1]


TENSORS = {
    "b": np.arange(6, dtype=np.float32).reshape(2, 3),
    "a": np.arange(3, dtype=np.float32),
    "é half": np.arange(5, dtype=np.float16),
    "codes": np.arange(7, dtype=np.uint8),
}
ANNOUNCED: dict[str, Announced] = {
    "codes": ("U8", (7,)),
    "b": ("F32", (2, 3)),
    "é half": ("F16", (5,)),
    "a": ("F32", (3,)),
}


def test_bytes_are_the_librarys_in_any_order(tmp_path: Path) -> None:
    save_file(TENSORS, tmp_path / "library")
    for names in (list(TENSORS), list(reversed(TENSORS))):
        with TensorsFile(tmp_path / "ours", ANNOUNCED) as file:
            for name in names:
                file.write(name, TENSORS[name])
        assert (tmp_path / "ours").read_bytes() == (tmp_path / "library").read_bytes()


def test_what_was_not_announced_is_refused(tmp_path: Path) -> None:
    for name, values in (("c", TENSORS["a"]), ("a", TENSORS["b"]), ("a", TENSORS["a"].astype(np.float64))):
        with (
            pytest.raises(IntegrityError, match=f"tensor {name} is .*; expected "),
            TensorsFile(tmp_path / "ours", ANNOUNCED) as file,
        ):
            file.write(name, values)
    with (
        pytest.raises(IntegrityError, match="lacks b, é half, codes"),
        TensorsFile(tmp_path / "ours", ANNOUNCED) as file,
    ):
        file.write("a", TENSORS["a"])
