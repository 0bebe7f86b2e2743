"""Every architecture in plain torch against transformers' own, layer by layer and behind a prefix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

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
    found = Sensitivity(decoder, read_positions_per_sequence=2).losses(groups, weights.matrices, INT4)
    for group in groups:
        changed = AutoModelForCausalLM.from_pretrained(student).eval()
        stored = torch.from_numpy(stored_values(weights.matrices[group.name], INT4))
        with torch.no_grad():
            for name, part in zip(group.weights, torch.split(stored, list(group.parts)), strict=True):
                changed.get_parameter(name).copy_(part.T if group.transposed else part)
        loss = kl(expected, _logits(changed)[rows]).mean()
        assert loss > 1e-6
        assert found[group.name] == pytest.approx(loss, rel=1e-2)
