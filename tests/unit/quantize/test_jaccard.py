"""LSAQ's importance: sets on paper, layers that do nothing, and logits from transformers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from transformers import OPTForCausalLM

from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.jaccard import jaccard, layer_similarities
from edgeicl.quantize.student_weights import StudentWeights
from tests.unit.quantize.tiny_student import SEQUENCES


def test_jaccard_on_paper() -> None:
    assert jaccard(frozenset({1, 2, 3}), frozenset({2, 3, 4})) == 2 / 4
    assert jaccard(frozenset({1}), frozenset({2})) == 0
    assert jaccard(frozenset({1, 2}), frozenset({2, 1})) == 1
    assert jaccard(frozenset(), frozenset()) == 1


@pytest.mark.parametrize("sets_over", ["sequence", "position"])
@pytest.mark.parametrize("final_norm", [True, False])
def test_transformers_hidden_states_give_the_same(
    weights: StudentWeights, reference: OPTForCausalLM, sets_over: str, final_norm: bool
) -> None:
    expected = np.zeros(2)
    spans = 0
    for sequence in SEQUENCES:
        states: list[torch.Tensor] = []
        hooks = [
            layer.register_forward_pre_hook(lambda _, args, kept=states: kept.append(args[0][0]))
            for layer in reference.model.decoder.layers
        ]
        norm = reference.model.decoder.final_layer_norm
        hooks.append(norm.register_forward_pre_hook(lambda _, args, kept=states: kept.append(args[0][0])))
        with torch.inference_mode():
            reference(torch.tensor([sequence]))
            for hook in hooks:
                hook.remove()
            tops = [
                reference.lm_head(norm(state) if final_norm else state).topk(5).indices.tolist()
                for state in states
            ]
        if sets_over == "sequence":
            tops = [[[token for row in top for token in row]] for top in tops]
        for row in range(len(tops[0])):
            spans += 1
            for layer in range(2):
                a, b = set(tops[layer][row]), set(tops[layer + 1][row])
                expected[layer] += len(a & b) / len(a | b)
    decoder = CalibratedDecoder(weights, SEQUENCES)
    found = layer_similarities(decoder, top_k=5, final_norm=final_norm, sets_over=sets_over)
    assert found == pytest.approx(expected / spans)
    assert 0 < found[0] < found[1] < 1  # the second layer was made to say little


def test_a_layer_that_does_nothing_has_similarity_1(weights: StudentWeights) -> None:
    silent = {"layers.1.attention.output", "layers.1.mlp.down"}
    zeroed = dataclasses.replace(
        weights,
        matrices={n: np.zeros_like(m) if n in silent else m for n, m in weights.matrices.items()},
        biases={n: np.zeros_like(b) if n in silent else b for n, b in weights.biases.items()},
    )
    found = layer_similarities(CalibratedDecoder(zeroed, SEQUENCES), top_k=5)
    assert found[1] == 1
    assert found[0] < 1
