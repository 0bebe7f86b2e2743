"""Recovery: what is computed, by second implementations; that it learns, and from the right targets; kills."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import OPTForCausalLM

from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.scoring import score_queries
from edgeicl.models.loading import load_model
from edgeicl.quantize import recovery
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.lessons import Answers, Lesson, label_log_probabilities
from edgeicl.quantize.own_texts import own_texts
from edgeicl.quantize.recovery import Recovered, recover
from edgeicl.quantize.solver import EACH_ALONE
from edgeicl.quantize.stored_weights import Stored, read_again, stored_matrix
from edgeicl.quantize.student_in_training import StudentInTraining
from edgeicl.quantize.student_weights import StudentWeights, read_weights
from edgeicl.specs.quant_plan import Format
from edgeicl.tasks.label_targets import LabelTargets
from tests.unit.quantize.tiny_student import SEQUENCES, WORDS, make_student
from tests.unit.tiny_models import make_model

INT2 = Format(bits=2, block_size=32)
ROWS = np.random.default_rng(0).integers(3, len(WORDS), size=(160, 10)).tolist()
UNSEEN = np.random.default_rng(1).integers(3, len(WORDS), size=(40, 10)).tolist()


def rounded(weights: StudentWeights) -> dict[str, Stored]:
    return {name: stored_matrix(matrix, INT2, EACH_ALONE["rtn"]) for name, matrix in weights.matrices.items()}


def in_training(folder: Path, **more: object) -> StudentInTraining:
    weights = read_weights(folder)
    return StudentInTraining(load_model(folder), weights, rounded(weights), **more)  # type: ignore[arg-type]


def log_probabilities(weights: StudentWeights, stored: dict[str, Stored]) -> torch.Tensor:
    """At all tokens of the unseen rows, by the layer-by-layer decoder."""
    replaced = {name: torch.from_numpy(read_again(matrix)) for name, matrix in stored.items()}
    decoder = CalibratedDecoder(weights, UNSEEN)
    hidden = decoder.embed(replaced)
    for index in range(decoder.layers):
        hidden = decoder.layer(index, hidden, replaced)
    return torch.log_softmax(decoder.logits(hidden, replaced).double(), -1)


def unseen_kl(weights: StudentWeights, found: StudentWeights, stored: dict[str, Stored]) -> float:
    exact = log_probabilities(weights, {})
    return float((exact.exp() * (exact - log_probabilities(found, stored))).sum(-1).mean())


@pytest.mark.parametrize("variant", ["gpt2-untied", "llama-tied-biases", "opt-350m", "qwen3"])
def test_logits_are_those_of_the_layer_by_layer_decoder(tmp_path: Path, variant: str) -> None:
    """Both students, padded, alone and behind a prefix; the stored one with biases and norms that moved."""
    folder = make_model(tmp_path, variant)
    student, weights = in_training(folder), read_weights(folder)
    torch.manual_seed(0)
    with torch.no_grad():
        for group in student.parameters(1.0):
            for parameter in group["params"]:
                parameter.add_(0.1 * torch.randn_like(parameter))
    changed, stored = student.result()
    replaced = {name: torch.from_numpy(read_again(matrix)) for name, matrix in stored.items()}
    for before in (None, np.array([3, 60, 61, 12])):
        skipped = 0 if before is None else len(before)
        for of, with_, logits in (
            (weights, None, student.exact_logits(SEQUENCES, before)),
            (changed, replaced, student.logits(SEQUENCES, before)),
        ):
            decoder = CalibratedDecoder(of, SEQUENCES, before)
            hidden = decoder.embed(with_)
            for index in range(decoder.layers):
                hidden = decoder.layer(index, hidden, with_)
            expected = decoder.logits(hidden, with_)[skipped:]
            found = logits.values.detach()[logits.real]
            assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("score", ["sum", "mean"])
@pytest.mark.parametrize("words", [[(10,), (11,)], [(10, 12), (11,), (13, 14, 15)]])
def test_label_scores_are_those_of_distillation(
    student: Path, words: list[tuple[int, ...]], score: str
) -> None:
    made = in_training(student)
    made.logits = made.exact_logits  # type: ignore[method-assign]
    answers = Answers(LabelTargets([], np.zeros(0), "verbalizers", ""), words, score)  # type: ignore[arg-type]
    found = label_log_probabilities(made, SEQUENCES, made.exact_logits(SEQUENCES), answers, None)
    reader = LabelReader(load_model(student), score=score)  # type: ignore[arg-type]
    expected = score_queries(reader, SEQUENCES, words, before=(), over="verbalizers")
    assert np.abs(found.numpy() - expected).max() < 1e-4


def learned(folder: Path, *, checkpoints: Path | None = None, steps: int = 60) -> Recovered:
    return recover(
        in_training(folder),
        [Lesson("text", ROWS)],
        steps=steps,
        learning_rate=0.03,
        batch_size=16,
        seed=0,
        checkpoint_folder=checkpoints,
    )


def test_a_student_of_two_bits_is_nearer_to_the_exact_one_on_unseen_text(
    student: Path, weights: StudentWeights, tmp_path: Path
) -> None:
    """The negative control learns as long from another model: that takes it away."""
    start = unseen_kl(weights, weights, rounded(weights))
    found = learned(student)
    assert found.record.best_step > 0
    first, best = found.record.at(0), found.record.at(found.record.best_step)
    assert best.loss < 0.6 * first.loss
    assert unseen_kl(weights, found.weights, found.stored) < 0.6 * start

    other = make_student(tmp_path)
    model = OPTForCausalLM.from_pretrained(other)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.flatten().flip(0).view_as(parameter))
    model.save_pretrained(other)
    wrong = StudentInTraining(load_model(other), weights, rounded(weights))
    misled = recover(wrong, [Lesson("text", ROWS)], steps=60, learning_rate=0.03, batch_size=16, seed=0)
    assert unseen_kl(weights, misled.weights, misled.stored) > start


def test_answers_of_a_teacher_are_learned(student: Path) -> None:
    """Of one that says the contrary of the student."""
    words = [(10,), (11,)]
    own = score_queries(LabelReader(load_model(student)), ROWS, words, before=(), over="verbalizers")
    lesson = Lesson("queries", ROWS, Answers(LabelTargets(ROWS, own[:, ::-1].copy(), "verbalizers", ""), words))
    made = recover(in_training(student), [lesson], steps=40, learning_rate=0.03, batch_size=16, seed=0)
    first, last = made.record.judged[0], made.record.judged[-1]
    assert first.kl_to_teacher is not None
    assert last.kl_to_teacher is not None
    assert last.kl_to_teacher < 0.7 * first.kl_to_teacher


def test_training_that_does_harm_is_not_kept(student: Path, weights: StudentWeights) -> None:
    found = recover(
        in_training(student), [Lesson("text", ROWS)], steps=4, learning_rate=30.0, batch_size=8, seed=0
    )
    assert found.record.best_step == 0
    for name, matrix in rounded(weights).items():
        assert np.array_equal(read_again(found.stored[name]), read_again(matrix))
    assert all(np.array_equal(found.weights.others[name], weights.others[name]) for name in weights.others)


def test_a_killed_training_ends_with_the_same_bits(
    student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = learned(student, steps=20)
    drawn: Callable[..., np.ndarray] = recovery._drawn
    begun: list[int] = []

    def counted(rows: np.ndarray, count: int, *, seed: list[int]) -> np.ndarray:
        if len(begun) == 9:
            raise KeyboardInterrupt
        begun.append(seed[-1])
        return drawn(rows, count, seed=seed)

    monkeypatch.setattr(recovery, "_drawn", counted)
    with pytest.raises(KeyboardInterrupt):
        learned(student, steps=20, checkpoints=tmp_path)
    begun.clear()
    monkeypatch.setattr(
        recovery, "_drawn", lambda rows, count, *, seed: begun.append(seed[-1]) or drawn(rows, count, seed=seed)
    )
    resumed = learned(student, steps=20, checkpoints=tmp_path)
    assert begun == [*range(8, 20)]  # it was looked at every 2 steps
    assert resumed.record == whole.record
    for name, matrix in whole.stored.items():
        assert np.array_equal(read_again(resumed.stored[name]), read_again(matrix))


def test_own_texts_begin_as_told_and_end_where_the_student_ends_them(student: Path) -> None:
    model = load_model(student)
    state = torch.random.get_rng_state()
    written = own_texts(model, leading=(0, 7), texts=70, tokens=12, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert written == own_texts(model, leading=(0, 7), texts=70, tokens=12, seed=1)
    assert written != own_texts(model, leading=(0, 7), texts=70, tokens=12, seed=2)
    assert all(row[:2] == [0, 7] and len(row) <= 12 for row in written)
    assert all(0 not in row[2:-1] for row in written)  # the end of a text, which is in none
    assert len({tuple(row) for row in written}) > 60
    starts = {row[0] for row in own_texts(model, leading=(), texts=64, tokens=4, seed=1)}
    assert len(starts) > 20
