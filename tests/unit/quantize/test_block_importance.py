"""Methods that rate whole blocks: scores on paper and from transformers, and the losses made of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from transformers import OPTForCausalLM

from edgeicl.quantize.block_influence import block_influences
from edgeicl.quantize.block_losses import block_losses, importance, relative_error
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.quantize.weight_outliers import outlier_importances, z_score_density
from edgeicl.specs.quant_plan import Format
from tests.unit.quantize.tiny_student import SEQUENCES

INT4 = Format(bits=4, block_size=32)


def test_block_influence_by_transformers_hidden_states(
    weights: StudentWeights, reference: OPTForCausalLM
) -> None:
    cosines: list[list[float]] = [[], []]
    for sequence in SEQUENCES:
        states: list[np.ndarray] = []
        modules = [*reference.model.decoder.layers, reference.model.decoder.final_layer_norm]
        hooks = [
            module.register_forward_pre_hook(lambda _, args, kept=states: kept.append(args[0][0].numpy()))
            for module in modules
        ]
        with torch.inference_mode():
            reference(torch.tensor([sequence]))
        for hook in hooks:
            hook.remove()
        for layer in (0, 1):
            for below, above in zip(states[layer], states[layer + 1], strict=True):
                cosines[layer].append(below @ above / np.linalg.norm(below) / np.linalg.norm(above))
    found = block_influences(CalibratedDecoder(weights, SEQUENCES))
    assert found == pytest.approx([1 - np.mean(layer) for layer in cosines], rel=1e-4)
    assert found[0] > found[1] > 0  # the second layer was made to say little


def test_a_block_that_does_nothing_has_no_influence(weights: StudentWeights) -> None:
    silent = {"layers.1.attention.output", "layers.1.mlp.down"}
    zeroed = dataclasses.replace(
        weights,
        matrices={n: np.zeros_like(m) if n in silent else m for n, m in weights.matrices.items()},
        biases={n: np.zeros_like(b) if n in silent else b for n, b in weights.biases.items()},
    )
    found = block_influences(CalibratedDecoder(zeroed, SEQUENCES))
    assert found[1] == pytest.approx(0, abs=1e-12)


def test_z_scores_on_paper() -> None:
    """Mean 1, variance (3 * 1 + 9) / 4 = 3: only 4 is more than 1.73 above the mean."""
    assert z_score_density([np.array([[0.0, 0.0]]), np.array([[0.0, 4.0]])]) == 0.25
    assert z_score_density([np.ones((2, 2))]) == 0
    normal = np.random.default_rng(0).normal(size=(400, 400)).astype(np.float32)
    assert z_score_density([normal]) == pytest.approx(0.1587, abs=0.003)


def test_the_block_of_fewest_outliers_matters_most(weights: StudentWeights) -> None:
    matrices = dict(weights.matrices)
    spread = np.zeros_like(matrices["layers.1.mlp.up"])
    spread[:, ::3] = 1  # a third of the block's largest matrix far above everything else
    matrices["layers.1.mlp.up"] = spread
    changed = dataclasses.replace(weights, matrices=matrices)
    shares = [
        z_score_density(m for name, m in matrices.items() if name.startswith(f"layers.{layer}."))
        for layer in (0, 1)
    ]
    found = outlier_importances(changed)
    fewest = int(np.argmin(shares))
    assert found[fewest] == 1
    assert found[1 - fewest] == pytest.approx(min(shares) / max(shares))
    assert shares[0] != pytest.approx(shares[1], rel=0.1)


def test_importance_of_a_group_is_its_blocks(weights: StudentWeights) -> None:
    by_name = {group.name: group for group in weights.groups}
    assert importance(by_name["layers.1.mlp.up"], (0.5, 0.0)) == 0
    assert importance(by_name["layers.0.mlp.up"], (0.5, 0.0)) == 0.5
    assert importance(by_name["embedding"], (0.5, 0.0)) == 1


def test_relative_error_on_paper() -> None:
    """fp16 keeps 1 and loses 1e-8: (1e-8)² / (1 + 1e-16); zeros have no error."""
    matrix = np.array([[1.0, 1e-8]], np.float32)
    assert relative_error(matrix, Format(bits=16)) == pytest.approx(1e-16, rel=1e-3)
    assert relative_error(matrix, Format(bits=32)) == 0
    assert relative_error(np.zeros((1, 16), np.float32), Format(bits=2, block_size=16)) == 0


def test_losses_are_importance_times_error(weights: StudentWeights) -> None:
    found = block_losses(weights.groups, weights.matrices, INT4, (0.75, 0.0))
    error = relative_error(weights.matrices["layers.0.mlp.up"], INT4)
    assert found["layers.0.mlp.up"] == pytest.approx(0.25 * 0.75 * error)
    assert found["layers.1.mlp.up"] == 0
    assert found["embedding"] == pytest.approx(relative_error(weights.matrices["embedding"], INT4))
