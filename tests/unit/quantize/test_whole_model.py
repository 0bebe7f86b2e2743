"""A student run whole beside the same student run layer by layer: two ways to the same losses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeicl.models.anatomy import EMBEDDING, Anatomy
from edgeicl.models.architectures.exported import read_anatomy
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.model_folder import model_config
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.student_weights import read_weights
from edgeicl.quantize.whole_model import WholeModelDecoder, read_whole_model
from edgeicl.specs.quant_plan import Format
from tests.unit.tiny_models import make_model

SEQUENCES = [[2, 5, 7, 30, 41, 9], [2, 100, 3], [2, 8, 250, 17]]
INT4 = Format(bits=4, block_size=16)


def exported_anatomy(folder: Path) -> Anatomy:
    return read_anatomy(json.dumps(model_config(folder)))


@pytest.fixture(scope="module", params=["opt", "gpt2", "llama"])
def student(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp(request.param), request.param)


def test_its_groups_are_all_the_matrices_that_the_lowering_has(student: Path) -> None:
    ours, whole = anatomy_of(model_config(student)), exported_anatomy(student)
    named = {name for group in ours.groups for name in group.weights}
    assert {name for group in whole.groups for name in group.weights} == named
    assert sum(np.prod(g.shape) for g in whole.groups) == sum(np.prod(g.shape) for g in ours.groups)
    assert (whole.layers, whole.heads, whole.kv_heads, whole.head_size, whole.positions, whole.tied) == (
        ours.layers,
        ours.heads,
        ours.kv_heads,
        ours.head_size,
        ours.positions,
        ours.tied,
    )
    assert whole.exported
    assert not ours.exported


def test_losses_are_those_of_the_layer_by_layer_student(student: Path) -> None:
    """Groups that are one matrix on both sides, the embedding among them."""
    by_layer = read_weights(student)
    whole = read_whole_model(student, exported_anatomy(student))
    pairs = {
        group.name: (group, other)
        for group in by_layer.groups
        for other in whole.groups
        if group.weights == other.weights
    }
    assert EMBEDDING in pairs
    assert len(pairs) >= 5
    expected = Sensitivity(CalibratedDecoder(by_layer, SEQUENCES)).losses(
        [group for group, _ in pairs.values()], by_layer, INT4
    )
    measure = Sensitivity(WholeModelDecoder(whole, SEQUENCES))
    found = measure.losses([other for _, other in pairs.values()], whole, INT4)
    assert [*found.values()] == pytest.approx([*expected.values()], rel=1e-4)
    assert min(found.values()) > 1e-6  # negative control: each of them does something
    # and the model is as it was
    assert measure.loss({}) == pytest.approx(0.0, abs=1e-9)


def test_a_changed_group_counts_in_the_table_and_in_the_tied_head(tmp_path: Path) -> None:
    folder = make_model(tmp_path, "opt")
    whole = read_whole_model(folder, exported_anatomy(folder))
    decoder = WholeModelDecoder(whole, SEQUENCES)
    changed = {EMBEDDING: torch.from_numpy(whole.matrices[EMBEDDING] * 1.5)}
    before, after = decoder.embed(), decoder.embed(changed)
    assert not torch.allclose(before, after)
    assert not torch.allclose(decoder.predictions(before), decoder.predictions(before, changed))
    assert torch.equal(before, decoder.embed())
