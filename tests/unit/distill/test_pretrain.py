"""Pretraining of the built-in models, on a model too small to learn."""

from __future__ import annotations

import math
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeicl.distill import pretrain as pretraining_module
from edgeicl.distill.episodes import encode, episode_text, story_text
from edgeicl.distill.pretrain import draw_batch, learning_rate, new_model, pretrain, training_loss
from edgeicl.specs.pretraining import EXAMPLE_TOKENS, Phase, Pretraining, Shape
from edgeicl.store import file_sha256
from edgeicl.tasks.nli_family import DOMAINS, TASKS
from edgeicl.tasks.nli_tokenizer import family_tokenizer

SHAPE = Shape(layers=2, width=16, heads=2, ffn_width=32, positions=128, initial_std=0.08)


def tiny(steps: int = 6) -> Pretraining:
    phase = Phase(
        steps=steps,
        learning_rate=1e-2,
        tokens_per_step=256,
        episode_examples=3,
        named_share=0.5,
        story_share=0.2,
        tasks=("entailment", "animal"),
    )
    return Pretraining(version=1, name="tiny", model=SHAPE, phases=(phase,), checkpoint_every_steps=2)


def answers(text: str) -> list[str]:
    tokenizer = family_tokenizer()
    batch = encode(tokenizer, [text])
    after = np.flatnonzero(batch.answer_mask[0]) + 1
    return [tokenizer.id_to_token(int(batch.tokens[0, position])) for position in after]


def test_answers_of_each_kind_of_text() -> None:
    assert answers("the dog rested today so the dog rested? Yes\n") == ["ĠYes"]
    assert answers("the dog rested today animal the dog rested? No\n") == ["ĠNo"]
    assert answers("the dog rested today. therefore the dog rested.\n") == ["Ġthe", "Ġdog", "Ġrested", ".", "Ċ"]


def test_padding_is_never_an_answer() -> None:
    rng = random.Random(0)
    story = story_text(rng, domains=["in_domain"], split="train")
    episode = episode_text(rng, task="today", domains=["in_domain"] * 5, split="train")
    batch = encode(family_tokenizer(), [story, episode])
    assert batch.tokens.shape == batch.answer_mask.shape
    assert not batch.answer_mask[0, batch.token_mask[0].sum() - 1 :].any()
    assert batch.answer_mask[1].sum() == 5


def test_most_tokens_of_an_example() -> None:
    rng, tokenizer = random.Random(0), family_tokenizer()
    lengths = {
        # without the token that begins a text
        len(tokenizer.encode(episode_text(rng, task=task, domains=[domain], split="train", named=named)).ids)
        - 1
        for _ in range(200)
        for task in TASKS
        for domain in DOMAINS
        for named in (False, True)
    }
    assert max(lengths) == EXAMPLE_TOKENS


def test_learning_rate_warms_up_and_falls() -> None:
    phase = tiny(steps=1000).phases[0]
    rates = [learning_rate(phase, step) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-2 / 200)
    assert max(rates) < 1e-2
    assert rates[-1] == pytest.approx(1e-3, rel=0.01)
    assert rates.index(max(rates)) == pytest.approx(199, abs=1)


def test_an_untrained_model_is_near_chance_on_average_and_the_loss_sees_every_term() -> None:
    torch.manual_seed(0)
    model = new_model(SHAPE.model_copy(update={"initial_std": 1e-4}), family_tokenizer().get_vocab_size())
    texts, first = draw_batch(tiny(), tiny().phases[0], 0, family_tokenizer())
    uniform = math.log(family_tokenizer().get_vocab_size())
    device = torch.device("cpu")
    assert training_loss(model, texts, first, 0.0, device).item() == pytest.approx(uniform, abs=0.05)
    assert training_loss(model, texts, first, 0.5, device).item() == pytest.approx(1.5 * uniform, abs=0.05)


def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretraining_module, "_EVALUATED_EPISODES", 4)
    pretrain(tiny(), tmp_path / "whole")
    drawn = pretraining_module.draw_batch

    def killed(pretraining: Pretraining, phase: Phase, step: int, tokenizer: object) -> object:
        if step == 5:
            raise KeyboardInterrupt
        return drawn(pretraining, phase, step, tokenizer)  # type: ignore[arg-type]

    monkeypatch.setattr(pretraining_module, "draw_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(tiny(), tmp_path / "resumed")
    assert not (tmp_path / "resumed").exists()
    monkeypatch.setattr(pretraining_module, "draw_batch", drawn)
    accuracy = pretrain(tiny(), tmp_path / "resumed")
    assert file_sha256(tmp_path / "resumed/model.safetensors") == file_sha256(
        tmp_path / "whole/model.safetensors"
    )
    assert set(accuracy["in_domain"]["entailment"]) == {0, 1, 2}
    assert not (tmp_path / "resumed/checkpoint").exists()
