"""The loss of in-context learning distillation, with and without text, and training by it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from transformers import OPTForCausalLM

from edgeicl.distill.in_context_tuning import SoftLoss, TextTerm, episode_scores, tune_in_context
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.trainer import TrainingSettings
from edgeicl.distill.tuning_episodes import Episode
from tests.killed_training import killed_before

ONE_TOKEN, OTHER_TOKENS = ((40,), (50,)), ((60, 61), (70,), (80,))
OPT = Callable[..., OPTForCausalLM]


def episodes(count: int = 12) -> list[Episode]:
    """Two tasks with other words and other numbers of labels; the label follows from the first token."""
    drawn = []
    for number in range(count):
        words = (ONE_TOKEN, OTHER_TOKENS)[number % 2]
        gold = number // 2 % len(words)
        ids = (0, 100 + gold, 20 + number, *range(90, 92 + number % 3))
        drawn.append(Episode(ids, (len(ids) - 1,), (gold,), words))
    return drawn


def settings(**changed: object) -> TrainingSettings:
    values = {
        "learning_rate": 3e-3,
        "epochs": 2,
        "batch_size": 4,
        "warmup_ratio": 0.25,
        "weight_decay": 0.01,
        "max_gradient_norm": 1.0,
        "checkpoint_every_steps": 2,
    }
    return TrainingSettings(**values | changed)  # type: ignore[arg-type]


def soft(
    teacher: LabelReader, *, weight: float = 1.0, temperature: float = 1.0, fading: bool = False
) -> SoftLoss:
    return SoftLoss(
        episode_scores(teacher, episodes(), over="verbalizers"), weight, temperature=temperature, fading=fading
    )


def text(teacher: LabelReader, *, weight: float = 0.5) -> TextTerm:
    blocks = np.random.default_rng(0).integers(2, 264, (5, 7))
    return TextTerm(blocks, weight, teacher)


def tune(reader: LabelReader, folder: Path | None = None, *, ce: float = 1.0, **options: object) -> list[float]:
    named = {name: options.pop(name) for name in ("soft", "text") if name in options}
    return tune_in_context(
        reader,
        episodes(),
        over="verbalizers",
        ce=ce,
        settings=settings(**options),
        seed=0,
        checkpoint_folder=folder,
        **named,  # type: ignore[arg-type]
    )


def test_the_soft_loss_fades_linearly() -> None:
    assert [SoftLoss([], 2.0, fading=True).weight_at(step, 4) for step in range(4)] == [2.0, 1.5, 1.0, 0.5]
    assert [SoftLoss([], 2.0).weight_at(step, 4) for step in (0, 3)] == [2.0, 2.0]


@pytest.mark.parametrize(("temperature", "lm"), [(1.0, 0.0), (2.0, 0.5)])
def test_the_first_loss_is_the_sum_of_the_papers_terms(opt: OPT, temperature: float, lm: float) -> None:
    """In numpy, from logits alone: one batch of all episodes, whatever their words."""
    student, teacher = LabelReader(opt(seed=1)), LabelReader(opt(seed=2))
    term = text(teacher, weight=lm)

    def kl(of_student: np.ndarray, of_teacher: np.ndarray) -> np.ndarray:
        p, q = (log_softmax(logits / temperature, -1) for logits in (of_teacher, of_student))
        return temperature**2 * (np.exp(p) * (p - q)).sum(-1)

    def logits(reader: LabelReader, ids: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return reader.model(input_ids=torch.tensor(ids)[None]).logits[0].double().numpy()

    def word_scores(reader: LabelReader, episode: Episode) -> np.ndarray:
        """Log-probability of each label's words."""
        found = []
        for word in episode.words:
            said = log_softmax(logits(reader, np.array([*episode.ids, *word])), -1)
            found.append(sum(said[len(episode.ids) - 1 + place, token] for place, token in enumerate(word)))
        return np.array(found)

    drawn = [np.random.default_rng([0, 0, number, 1]).integers(len(term.blocks)) for number in range(12)]
    blocks = term.blocks[drawn]
    expected = []
    for number, episode in enumerate(episodes()):
        ours, theirs = (word_scores(reader, episode) for reader in (student, teacher))
        value = 3.0 * -log_softmax(ours)[episode.gold[0]] + 0.7 * kl(ours, log_softmax(theirs))
        block = blocks[number]
        said, taught = (logits(reader, block)[:-1] for reader in (student, teacher))
        next_token = -log_softmax(said, -1)[np.arange(len(block) - 1), block[1:]]
        value += lm * (3.0 * next_token.mean() + 0.7 * kl(said, taught).mean())
        expected.append(value)
    options = {"ce": 3.0, "soft": soft(teacher, weight=0.7, temperature=temperature), "batch_size": 12}
    losses = tune(student, **options, **({"text": term} if lm else {}))  # type: ignore[arg-type]
    assert losses[0] == pytest.approx(np.mean(expected), rel=1e-4)


def test_text_without_a_teacher_has_the_hard_loss_alone(opt: OPT) -> None:
    """With a teacher that counts nothing it is the same, and with one that counts it is not."""
    teacher = LabelReader(opt(seed=2))
    alone, idle, taught = LabelReader(opt(seed=1)), LabelReader(opt(seed=1)), LabelReader(opt(seed=1))
    plain = TextTerm(text(teacher).blocks, 0.5)
    losses = tune(alone, soft=soft(teacher), text=plain)
    assert losses != tune(taught, soft=soft(teacher), text=text(teacher))
    without = tune(LabelReader(opt(seed=1)), text=plain)
    assert without == tune(idle, soft=soft(teacher, weight=0.0), text=text(teacher))
    assert without != tune(LabelReader(opt(seed=1)))


def test_in_context_tuning_learns_the_labels(opt: OPT) -> None:
    losses = tune(LabelReader(opt(seed=3)), epochs=40)
    assert losses[-1] < 0.2 < losses[0]


def test_the_student_comes_closer_to_its_teacher_than_labels_bring_it(opt: OPT) -> None:
    teacher = LabelReader(opt(seed=4))
    targets = episode_scores(teacher, episodes(), over="verbalizers")

    def apart(reader: LabelReader) -> float:
        found = episode_scores(reader, episodes(), over="verbalizers")
        return float(np.mean([(np.exp(p) * (p - q)).sum() for p, q in zip(targets, found, strict=True)]))

    distilled, tuned = LabelReader(opt(seed=5)), LabelReader(opt(seed=5))
    before = apart(distilled)
    tune(distilled, ce=0.0, soft=SoftLoss(targets, 1.0), epochs=20)
    tune(tuned, epochs=20)
    assert apart(distilled) < 0.2 * before
    assert apart(distilled) < 0.2 * apart(tuned)


def test_text_is_learned_beside_the_episodes(opt: OPT) -> None:
    teacher = LabelReader(opt(seed=6))
    term = text(teacher, weight=1.0)

    def next_token_loss(reader: LabelReader) -> float:
        blocks = torch.from_numpy(term.blocks)
        with torch.no_grad():
            return float(reader.model(input_ids=blocks, labels=blocks).loss)

    with_text, without = LabelReader(opt(seed=7)), LabelReader(opt(seed=7))
    tune(with_text, soft=SoftLoss([], 0.0), text=term, epochs=30)
    tune(without, epochs=30)
    assert next_token_loss(with_text) < next_token_loss(without) - 1


def test_a_killed_tuning_goes_on_to_the_same_bits(opt: OPT, tmp_path: Path) -> None:
    teacher = LabelReader(opt(seed=8))
    options = {"soft": soft(teacher, fading=True), "text": text(teacher)}
    whole = LabelReader(opt(seed=9))
    losses = tune(whole, **options)
    with killed_before(3):
        tune(LabelReader(opt(seed=9)), tmp_path, **options)
    resumed = LabelReader(opt(seed=9))
    assert tune(resumed, tmp_path, **options) == losses
    assert all(torch.equal(value, resumed.state_dict()[name]) for name, value in whole.state_dict().items())
