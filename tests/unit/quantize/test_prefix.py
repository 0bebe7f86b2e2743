"""A student behind a prefix: measured there, budgeted with its bytes, refused where it has no room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save
from transformers import OPTForCausalLM

from edgeicl.errors import BudgetError, DataError
from edgeicl.numerics.size import prefix_file_bytes
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.jaccard import layer_similarities
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.stage import quantize
from edgeicl.quantize.stored_weights import stored_values
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.importance import ImportanceTable
from edgeicl.specs.prefix import write_prefix_source
from edgeicl.specs.quant_plan import Format, QuantPlan
from edgeicl.store import StageOutput, Store
from tests.unit.divergence import kl
from tests.unit.quantize.test_quantize_stage import ALL, LARGEST_BYTES, _recipe, _target
from tests.unit.quantize.tiny_student import SEQUENCES

TOKENS = np.array([0, 20, 3, 21, 4])
VECTORS = np.random.default_rng(1).normal(size=(5, 32)).astype(np.float32)
INT4 = Format(bits=4, block_size=32)


def after(model: OPTForCausalLM, prefix: np.ndarray) -> np.ndarray:
    """Logits [T, V] of the sequences' own tokens, each read behind the prefix in a prompt of its own."""
    embedding = model.get_input_embeddings()
    before = torch.from_numpy(prefix) if prefix.ndim == 2 else embedding(torch.from_numpy(prefix))
    with torch.inference_mode():
        return np.concatenate(
            [
                model(inputs_embeds=torch.cat([before, embedding(torch.tensor(s))])[None])
                .logits[0, len(prefix) :]
                .numpy()
                for s in SEQUENCES
            ]
        )


@pytest.mark.parametrize("prefix", [TOKENS, VECTORS], ids=["tokens", "vectors"])
def test_logits_behind_a_prefix_are_those_of_whole_prompts(
    weights: StudentWeights, reference: OPTForCausalLM, prefix: np.ndarray
) -> None:
    decoder = CalibratedDecoder(weights, SEQUENCES, prefix)
    found = decoder.logits(decoder.layer_inputs()[-1][len(prefix) :]).numpy()
    expected = after(reference, prefix)
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    alone = CalibratedDecoder(weights, SEQUENCES)  # negative control
    assert np.abs(alone.logits(alone.layer_inputs()[-1]).numpy() - expected).max() > 0.1


def test_only_the_sequences_are_read(weights: StudentWeights) -> None:
    """The prefix is 5 rows; sequences end at rows 11, 15, 25, 26."""
    decoder = CalibratedDecoder(weights, SEQUENCES, TOKENS)
    assert decoder.read_positions(1).tolist() == [11, 15, 25, 26]
    assert len(layer_similarities(decoder, top_k=3)) == 2


@pytest.mark.parametrize("prefix", [TOKENS, VECTORS], ids=["tokens", "vectors"])
def test_sensitivity_includes_what_quantization_does_to_the_prefix(
    weights: StudentWeights, reference: OPTForCausalLM, prefix: np.ndarray
) -> None:
    """KL from scratch: the group's parameters change in transformers' model, which reads the prefix anew."""
    group = next(group for group in weights.groups if group.name == "layers.0.mlp.up")
    decoder = CalibratedDecoder(weights, SEQUENCES, prefix)
    found = Sensitivity(decoder, read_positions_per_sequence=99).losses([group], weights, INT4)
    original = after(reference, prefix)
    parameter = reference.get_parameter(group.weights[0])
    kept = parameter.detach().clone()
    try:
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(stored_values(weights.matrices[group.name], INT4)))
        expected = kl(original, after(reference, prefix)).mean()
    finally:
        with torch.no_grad():
            parameter.copy_(kept)
    assert found[group.name] == pytest.approx(expected, rel=1e-3)


def test_a_prefix_takes_positions(weights: StudentWeights) -> None:
    with pytest.raises(DataError, match=r"have \[36\] tokens; expected 1 to 35"):
        CalibratedDecoder(weights, [[0] * 36], TOKENS)


@pytest.mark.parametrize(("bits", "ids"), [(32, True), (16, False)])
def test_bytes_of_the_file_are_bounded_from_above(bits: int, ids: bool) -> None:
    """Against the library's own file: 12 layers of width 768, two sets."""
    dtype = np.dtype(f"float{bits}")
    tensors = {
        f"{number}.past_key_values.{layer}.{kind}": np.zeros((12, count, 64), dtype)
        for number, count in enumerate((100, 7))
        for layer in range(12)
        for kind in ("key", "value")
    }
    if ids:
        tensors |= {f"{number}.input_ids": np.zeros(count, np.int64) for number, count in enumerate((100, 7))}
    predicted = prefix_file_bytes(12, 768, [100, 7], bits=bits, ids=ids)
    assert 0 <= predicted - len(save(tensors)) < 3000
    assert prefix_file_bytes(12, 768, [], bits=bits, ids=ids) == 0


def run(student: Path, store: Path, sets: list[np.ndarray], *, context_tokens: int, budget: int) -> StageOutput:
    prefix = store.parent / "source.safetensors"
    write_prefix_source(prefix, sets)
    target = _target(ALL, artifact_bytes=budget).model_copy(update={"context_tokens": context_tokens})
    return quantize(
        _recipe(),
        target,
        student=student,
        student_digest="digest",
        store=Store(store),
        base_folder=student,
        prefix=prefix if sets else None,
    )


def test_a_plan_leaves_room_for_the_prefix(student: Path, tmp_path: Path) -> None:
    """Two sets take 10 positions x 2 layers x 2 x 32 numbers of 4 bytes, and a header."""

    def plan(output: StageOutput) -> QuantPlan:
        return QuantPlan.model_validate_json((output.path / "plan.json").read_bytes())

    store = tmp_path / "store"
    alone = run(student, store, [], context_tokens=30, budget=LARGEST_BYTES)
    behind = run(student, store, [TOKENS, TOKENS[::-1].copy()], context_tokens=30, budget=LARGEST_BYTES)
    more = plan(behind).predicted_artifact_bytes - plan(alone).predicted_artifact_bytes
    assert more == prefix_file_bytes(2, 32, [5, 5], bits=32, ids=True)
    assert plan(behind).predicted_resident_bytes - plan(alone).predicted_resident_bytes == more
    assert plan(behind).formats() == plan(alone).formats()  # all in fp32: there is room for both
    tight = plan(alone).predicted_artifact_bytes
    squeezed = plan(run(student, store, [TOKENS, TOKENS[::-1].copy()], context_tokens=30, budget=tight))
    assert squeezed.predicted_artifact_bytes <= tight
    assert squeezed.formats() != plan(alone).formats()
    with pytest.raises(BudgetError, match=f"prefix {more}"):
        run(student, store, [TOKENS, TOKENS[::-1].copy()], context_tokens=30, budget=20_000)


def test_importance_is_measured_behind_the_prefix(student: Path, tmp_path: Path) -> None:
    def losses(output: StageOutput) -> dict[str, dict[Format, float]]:
        return ImportanceTable.model_validate_json((output.path / "importance.json").read_bytes()).losses()

    store = tmp_path / "store"
    found = [
        losses(run(student, store, sets, context_tokens=30, budget=LARGEST_BYTES))
        for sets in ([], [TOKENS], [TOKENS[::-1].copy()], [TOKENS])
    ]
    assert found[1] == found[3]
    assert found[0] != found[1] != found[2] != found[0]


def test_no_room_for_a_query_is_told_before_anything_is_measured(student: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"5 tokens stand before every query, .*: \d+ in all; found room for 8"):
        run(student, tmp_path / "store", [TOKENS], context_tokens=8, budget=LARGEST_BYTES)
    assert not (tmp_path / "store" / "importance").exists()
