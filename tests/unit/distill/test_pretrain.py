"""Pretraining of the built-in models, on a model too small to learn."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeicl.distill import pretrain as pretraining_module
from edgeicl.distill.answer_loss import answer_loss
from edgeicl.distill.episodes import encode, episode_text
from edgeicl.distill.new_model import new_model
from edgeicl.distill.pretrain import RECIPE, draw_batch, pretrain
from edgeicl.distill.pretraining_loop import learning_rates
from edgeicl.errors import DataError, EdgeiclError
from edgeicl.specs.loading import load_spec
from edgeicl.specs.pretraining import EXAMPLE_TOKENS, Phase, Pretraining, Shape
from edgeicl.store import file_sha256
from edgeicl.tasks.nli_family import DOMAINS, TASKS
from edgeicl.tasks.nli_stories import story_text
from edgeicl.tasks.nli_tokenizer import family_tokenizer

SHAPE = Shape(layers=2, width=16, heads=2, ffn_width=32, positions=128, initial_std=0.08)


@pytest.fixture(autouse=True)
def _quick_and_with_its_own_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretraining_module, "_EVALUATED_EPISODES", 4)
    monkeypatch.setenv("EDGEICL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))


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
    rates = learning_rates([phase])
    assert rates[0] == pytest.approx(1e-2 / 200)
    assert max(rates) < 1e-2
    assert rates[-1] == pytest.approx(1e-3, rel=0.01)
    assert rates.index(max(rates)) == pytest.approx(199, abs=1)


def test_an_untrained_model_is_near_chance_on_average_and_the_loss_sees_every_term() -> None:
    torch.manual_seed(0)
    model = new_model(SHAPE.model_copy(update={"initial_std": 1e-4}), family_tokenizer().get_vocab_size())
    texts, first = draw_batch(tiny(), tiny().phases[0], 0, family_tokenizer())
    uniform = math.log(family_tokenizer().get_vocab_size())
    assert answer_loss(model, texts, 0.0, first).item() == pytest.approx(uniform, abs=0.05)
    assert answer_loss(model, texts, 0.5, first).item() == pytest.approx(1.5 * uniform, abs=0.05)


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch, pretraining: Pretraining, output: Path) -> None:
    """Pretrains until a certain step."""
    drawn = pretraining_module.draw_batch

    def draw(pretraining: Pretraining, phase: Phase, now: int, tokenizer: Any) -> Any:
        if now == step:
            raise KeyboardInterrupt
        return drawn(pretraining, phase, now, tokenizer)

    with monkeypatch.context() as patch:
        patch.setattr(pretraining_module, "draw_batch", draw)
        with pytest.raises(KeyboardInterrupt):
            pretrain(pretraining, output)
    assert not output.exists()


def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain(tiny(), tmp_path / "whole")
    killed_at(5, monkeypatch, tiny(), tmp_path / "resumed")
    accuracy = pretrain(tiny(), tmp_path / "resumed")
    assert file_sha256(tmp_path / "resumed/model.safetensors") == file_sha256(
        tmp_path / "whole/model.safetensors"
    )
    assert set(accuracy["in_domain"]["entailment"]) == {0, 1, 2}
    assert not (tmp_path / "resumed/checkpoint").exists()


def test_a_checkpoint_of_another_recipe_is_told_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = tiny().model_copy(update={"seed": 1})
    pretrain(other, tmp_path / "whole")
    killed_at(5, monkeypatch, tiny(), tmp_path / "resumed")
    caplog.clear()
    pretrain(other, tmp_path / "resumed")
    assert "is of another recipe; starting over" in caplog.text
    assert weights(tmp_path / "resumed") == weights(tmp_path / "whole")


def test_a_damaged_checkpoint_is_told_and_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pretrain(tiny(), tmp_path / "whole")
    killed_at(5, monkeypatch, tiny(), tmp_path / "resumed")
    (state,) = (tmp_path / ".resumed.edgeicl-partial").rglob("model.safetensors")
    state.write_bytes(b"half")
    pretrain(tiny(), tmp_path / "resumed")
    assert "was changed after it was written: model.safetensors; starting over" in caplog.text
    assert weights(tmp_path / "resumed") == weights(tmp_path / "whole")


def test_only_what_it_wrote_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "mine"
    output.mkdir()
    (output / "config.json").write_text("{}")

    def trains(*_: object) -> None:
        raise AssertionError("trained first")

    with monkeypatch.context() as patch:
        patch.setattr(pretraining_module, "new_model", trains)
        with pytest.raises(DataError, match="was not made by this command"):
            pretrain(tiny(), output)
    assert [path.name for path in output.iterdir()] == ["config.json"]
    (output / "config.json").unlink()
    for steps in (1, 2):
        pretrain(tiny(steps), output)
        assert load_spec(output / RECIPE, Pretraining) == tiny(steps)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def weights(folder: Path) -> str:
    return file_sha256(folder / "model.safetensors")


def test_a_launcher_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes would wait for each other at the output folder."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(EdgeiclError, match="pretrain runs in one process; found WORLD_SIZE 2"):
        pretrain(tiny(), tmp_path / "model")
