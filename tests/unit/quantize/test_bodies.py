"""Every architecture in plain torch against transformers' own, layer by layer and behind a prefix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from edgeicl.quantize import input_steps
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.stored_weights import stored_values
from edgeicl.quantize.student_weights import StudentWeights, read_weights
from edgeicl.specs.quant_plan import Format
from tests.unit.divergence import kl
from tests.unit.tiny_models import VARIANTS, make_model

SEQUENCES = [[0, 7, 8, 9, 10, 11, 5], [0, 20, 30, 5], [*range(40, 90)], [6]]
INT4 = Format(bits=4, block_size=32)


@pytest.fixture(scope="module", params=VARIANTS)
def student(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("student"), request.param)


@pytest.fixture(scope="module")
def weights(student: Path) -> StudentWeights:
    return read_weights(student)


def _logits(model: torch.nn.Module, before: list[int] | None = None) -> np.ndarray:
    """Of all tokens of all sequences, each read behind `before` and none of its logits."""
    stands = before or []
    with torch.inference_mode():
        rows = [model(torch.tensor([[*stands, *s]])).logits[0, len(stands) :].numpy() for s in SEQUENCES]
    return np.concatenate(rows)


@pytest.fixture(autouse=True)
def _several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attention goes through two batches, which aren't in the order of the sequences."""
    monkeypatch.setattr("edgeicl.quantize.attention._ATTENDED_AT_ONCE", 2)


def test_logits_are_those_of_transformers(student: Path, weights: StudentWeights) -> None:
    decoder = CalibratedDecoder(weights, SEQUENCES)
    found = decoder.logits(decoder.layer_inputs()[-1]).numpy()
    expected = _logits(AutoModelForCausalLM.from_pretrained(student).eval())
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_rows_of_a_layer_are_those_of_all_of_it(weights: StudentWeights) -> None:
    decoder = CalibratedDecoder(weights, SEQUENCES)
    states, rows = decoder.layer_inputs(), decoder.read_positions(2)
    found = decoder.layer(1, states[1], rows=rows)
    torch.testing.assert_close(found, states[2][rows], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(found[1:], found[:-1], atol=1e-3)  # negative control: rows differ


def test_steps_are_of_every_group_that_reads_inputs(
    weights: StudentWeights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An untied head and projections too."""
    monkeypatch.setattr(input_steps, "FARTHEST_TOKEN", np.inf)
    found = CalibratedDecoder(weights, SEQUENCES).input_steps
    assert found.keys() == {group.name for group in weights.groups} - {"embedding"}


def test_a_prefix_has_no_part_in_steps(weights: StudentWeights, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_steps, "FARTHEST_TOKEN", np.inf)
    spikes = np.zeros((2, weights.anatomy.embedding_width), np.float32)
    spikes[:, 0] = 1000.0
    decoder = CalibratedDecoder(weights, SEQUENCES, spikes)
    rows: dict[str, torch.Tensor] = {}
    decoder.layer(0, decoder.embed(), before=rows.__setitem__)
    inputs = rows["layers.0.attention.qkv"].abs()
    # negative control; a projection into the layers' width spreads a spike
    assert weights.anatomy.projected or inputs[:2].max() > 1.2 * inputs[2:].max()
    found = decoder.input_steps["layers.0.attention.qkv"]
    assert found == pytest.approx(1.1 * float(inputs[2:].max()) / 127, rel=1e-5)


def test_matrices_lie_as_they_are_written(weights: StudentWeights) -> None:
    """safetensors writes memory as it lies, whatever the strides say."""
    assert all(matrix.flags.c_contiguous for matrix in weights.matrices.values())


@pytest.mark.parametrize("kind", ["tokens", "vectors"])
def test_logits_behind_a_prefix(student: Path, weights: StudentWeights, kind: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(student).eval()
    before = [3, 60, 61, 12]
    with torch.inference_mode():
        vectors = model.get_input_embeddings()(torch.tensor(before)).numpy()
    decoder = CalibratedDecoder(weights, SEQUENCES, np.array(before) if kind == "tokens" else vectors)
    found = decoder.logits(decoder.layer_inputs()[-1]).numpy()[len(before) :]
    expected = _logits(model, before)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(found - _logits(model)).max() > 1e-2 * np.abs(expected).max()


def test_losses_of_groups_are_the_kl_of_the_changed_model(student: Path, weights: StudentWeights) -> None:
    """Every kind of group, an untied head included, replaced in transformers' model as well."""
    model = AutoModelForCausalLM.from_pretrained(student).eval()
    decoder = CalibratedDecoder(weights, SEQUENCES)
    rows = decoder.read_positions(2).numpy()
    expected = _logits(model)[rows]
    groups = [group for group in weights.groups if group.layer in (1, None)]
    found = Sensitivity(decoder, read_positions_per_sequence=2).losses(groups, weights, INT4)
    for group in groups:
        changed = AutoModelForCausalLM.from_pretrained(student).eval()
        stored = torch.from_numpy(stored_values(weights.matrices[group.name], INT4))
        with torch.no_grad():
            for name, part in zip(group.weights, torch.split(stored, list(group.parts)), strict=True):
                changed.get_parameter(name).copy_(part.T if group.transposed else part)
        loss = kl(expected, _logits(changed)[rows]).mean()
        assert loss > 1e-6
        assert found[group.name] == pytest.approx(loss, rel=1e-2)
