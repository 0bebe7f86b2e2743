"""A head of the labels alone in the quantize stage: what is stored, counted and measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import OPTForCausalLM

from edgeicl.errors import DataError
from edgeicl.models.anatomy import EMBEDDING, LABEL_HEAD
from edgeicl.numerics.size import group_bytes, held_bytes
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.measured_importance import Student
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.stage import quantize
from edgeicl.quantize.stored_weights import stored_values
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.quant_plan import Format, QuantPlan
from edgeicl.specs.recipe import Lsaq
from edgeicl.specs.target import Target
from edgeicl.store import Store
from tests.unit.divergence import kl
from tests.unit.quantize.test_first_token import timed as timed_target
from tests.unit.quantize.test_quantize_stage import ALL, LARGEST_BYTES, _recipe, _target
from tests.unit.quantize.tiny_student import SEQUENCES
from tests.unit.tiny_models import make_model

YES, NO = 3, 4
INT4 = Format(bits=4, block_size=32)


def run(
    student: Path, store: Path, *, head: str, target: Target | None = None, **budget: int
) -> tuple[Any, QuantPlan]:
    recipe = _recipe()
    recipe = recipe.model_copy(update={"emit": recipe.emit.model_copy(update={"head": head})})
    target = target or _target(ALL, **budget or {"artifact_bytes": LARGEST_BYTES})
    output = quantize(
        recipe, target, student=student, student_digest="d", store=Store(store), base_folder=student
    )
    return output, QuantPlan.model_validate_json((output.path / "plan.json").read_bytes())


def test_rows_are_stored_as_they_are_and_counted(
    student: Path, weights: StudentWeights, tmp_path: Path
) -> None:
    full_output, full = run(student, tmp_path, head="full")
    output, plan = run(student, tmp_path, head="verbalizers")
    stored = load_file(output.path / "weights.safetensors")
    assert np.array_equal(stored[LABEL_HEAD], weights.matrices[EMBEDDING][[YES, NO]])
    assert LABEL_HEAD not in load_file(full_output.path / "weights.safetensors")
    # Everything is in fp32 within so large a budget: two rows of 32 more, the table not a second time.
    assert {str(f) for f in plan.formats().values()} == {"fp32"}
    assert plan.predicted_weight_bytes - full.predicted_weight_bytes == 2 * 32 * 4
    assert full.predicted_resident_bytes - plan.predicted_resident_bytes == 96 * 32 * 4 - 2 * 32 * 4


def test_prompts_are_all_there_is(student: Path, tmp_path: Path) -> None:
    """So whole attention is taken without a limit where it is faster, beside a cache of integers too."""
    timed = timed_target(copy=False, whole_ps=1.0)
    integers = Target.model_validate(timed.model_dump() | {"cache_bits": [8]})
    found = [
        run(student, tmp_path, head=head, target=target)[1].prompt_attention
        for head, target in (("verbalizers", timed), ("full", timed), ("verbalizers", integers))
    ]
    assert found == ["whole", "tiled", "whole"]


def test_what_a_looked_up_table_holds_on_paper() -> None:
    """4 x 64 weights that nothing is multiplied with: what is stored, whatever the format."""
    assert held_bytes(4, 64, INT4, looked_up=True, multiplied=False) == 128 + 4 * 2 * 4
    for format_ in (INT4, Format(bits=8, block_size=16, symmetric=False), Format(bits=16), Format(bits=32)):
        found = held_bytes(4, 64, format_, looked_up=True, multiplied=False)
        assert found == group_bytes(4, 64, format_) < held_bytes(4, 64, format_, looked_up=True)


def test_losses_are_of_the_labels_read_from_rows_that_are_not_quantized(
    weights: StudentWeights, reference: OPTForCausalLM
) -> None:
    """Against transformers: the table quantized for looking up, the labels' rows as they were."""
    sensitivity = Sensitivity(CalibratedDecoder(weights, SEQUENCES, head_tokens=(YES, NO)))
    stored = stored_values(weights.matrices[EMBEDDING], INT4)
    found = sensitivity.loss({EMBEDDING: torch.from_numpy(stored)})
    rows = torch.from_numpy(weights.matrices[EMBEDDING][[YES, NO]])
    apart = []
    with torch.inference_mode():
        for sequence in SEQUENCES:
            length = len(sequence)
            read = [(part + 1) * length // min(4, length) - 1 for part in range(min(4, length))]
            logits = []
            for table in (weights.matrices[EMBEDDING], stored):
                embedded = torch.from_numpy(table)[torch.tensor(sequence)][None]
                hidden = reference.model(inputs_embeds=embedded).last_hidden_state[0]
                logits.append((hidden @ rows.T).numpy()[read])
            apart.append(kl(*logits))
    assert found == pytest.approx(float(np.concatenate(apart).mean()), rel=1e-3)
    # Negative control: over the whole vocabulary, with the head quantized, it is another figure.
    whole = Sensitivity(CalibratedDecoder(weights, SEQUENCES)).loss({EMBEDDING: torch.from_numpy(stored)})
    assert abs(whole / found - 1) > 0.1


def test_labels_of_several_tokens_are_refused_before_any_work(student: Path, tmp_path: Path) -> None:
    recipe = _recipe()
    words = recipe.task.model_copy(update={"verbalizers": {"yes": "Yes No", "no": "No"}})
    recipe = recipe.model_copy(
        update={"task": words, "emit": recipe.emit.model_copy(update={"head": "verbalizers"})}
    )
    with pytest.raises(DataError, match=r"'yes' \(2 tokens\)"):
        quantize(
            recipe,
            _target(ALL, artifact_bytes=LARGEST_BYTES),
            student=student,
            student_digest="d",
            store=Store(tmp_path),
            base_folder=student,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_head_of_its_own_is_refused(tmp_path: Path) -> None:
    student = make_model(tmp_path, "llama")
    with pytest.raises(DataError, match=r"a llama model with a head of its own; found emit\.head: verbalizers"):
        run(student, tmp_path / "store", head="verbalizers")


def test_jaccard_asks_the_whole_vocabulary(student: Path, weights: StudentWeights) -> None:
    """Of two labels, the top 10 are always the same two: every block would seem to do nothing."""
    full, labels = (
        Student(
            load=lambda: weights,
            groups=weights.groups,
            digest="d",
            sequences=SEQUENCES,
            importance="jaccard",
            top_k=10,
            lsaq=Lsaq(),
            solver="rtn",
            head_tokens=head_tokens,
        )
        for head_tokens in (None, (YES, NO))
    )
    assert labels.block_importances == full.block_importances
    assert min(full.block_importances) > 0
