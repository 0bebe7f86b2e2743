"""Pretraining on real text, on a model too small to learn much."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edgeicl.distill.text_batches import Episode
from edgeicl.distill.text_pretraining import accuracy_by_place, pretrain_on_text, without_texts_of
from edgeicl.errors import DataError
from edgeicl.models.loading import load_model, load_tokenizer
from edgeicl.specs.text_pretraining import TextPretraining
from edgeicl.store import file_sha256
from edgeicl.tasks.example import Example

SUBJECTS, MOODS = ("film", "meal", "song", "walk"), {"good": ("fine", "lovely"), "bad": ("awful", "dull")}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    rows = [
        {"text": f"the {subject} was {word} on day {day}", "label": label}
        for subject in SUBJECTS
        for label, words in MOODS.items()
        for word in words
        for day in range(6)
    ]
    (tmp_path / "task.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[::5]))
    (tmp_path / "text.txt").write_text(
        "\n\n".join(f"a story of the {s} that went on and on " * 20 for s in SUBJECTS)
    )
    return tmp_path


def recipe(**changes: object) -> TextPretraining:
    task = {"pattern": "{text} answer:", "data": {"source": "file:task.jsonl"}}
    phase = {"steps": 6, "learning_rate": 1e-2, "tokens_per_step": 128, "plain_share": 0.3, "plain_tokens": 24}
    values = {
        "version": 1,
        "kind": "text",
        "name": "tiny",
        "vocabulary": 320,
        "embeddings": "cooccurrence",
        "model": {"layers": 1, "width": 16, "heads": 2, "ffn_width": 32, "positions": 96, "initial_std": 0.05},
        "text": [{"source": "file:text.txt"}, {"source": "file:task.jsonl"}],
        "tasks": {"mood": task},
        "evaluation": {"mood": task | {"data": {"source": "file:test.jsonl"}}},
        "phases": [
            phase | {"document_share": 0.3, "episode_examples": 4, "passage_tokens": 5, "fixed_share": 0.5}
        ],
        "checkpoint_every_steps": 2,
    }
    return TextPretraining.model_validate(values | changes)


def test_a_model_comes_out_that_can_be_gone_on_from(data: Path) -> None:
    found = pretrain_on_text(recipe(), data / "first", base_folder=data)
    assert set(found["accuracy"]["mood"]) == {0, 1, 2, 3}
    model = load_model(data / "first")
    assert model.get_input_embeddings().weight.shape[0] == load_tokenizer(data / "first").get_vocab_size()
    further = recipe(model=None, start_from="./first", embeddings="random")
    pretrain_on_text(further, data / "second", base_folder=data)
    assert file_sha256(data / "second/tokenizer.json") == file_sha256(data / "first/tokenizer.json")
    assert file_sha256(data / "second/model.safetensors") != file_sha256(data / "first/model.safetensors")


def test_a_killed_run_ends_with_the_same_weights(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretrain_on_text(recipe(), data / "whole", base_folder=data)
    from edgeicl.distill import text_pretraining

    whole, calls = text_pretraining.answer_loss, []

    def killed(*args: object) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return whole(*args)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(text_pretraining, "answer_loss", killed)
        with pytest.raises(KeyboardInterrupt):
            pretrain_on_text(recipe(), data / "resumed", base_folder=data)
    pretrain_on_text(recipe(), data / "resumed", base_folder=data)
    assert file_sha256(data / "whole/model.safetensors") == file_sha256(data / "resumed/model.safetensors")


def test_what_is_evaluated_on_is_not_trained_on() -> None:
    evaluated = [Example({"text": "It was fine, really!"}, "good")]
    tasks = {
        "pairs": [
            Example({"premise": "it  was FINE, really!", "hypothesis": "yes"}, "a"),
            Example({"premise": "another", "hypothesis": "no"}, "b"),
        ]
    }
    assert without_texts_of([evaluated], tasks) == {"pairs": tasks["pairs"][1:]}


def test_accuracy_by_place_on_paper() -> None:
    class Says(torch.nn.Module):
        device = torch.device("cpu")

        def forward(self, input_ids: torch.Tensor, use_cache: bool) -> object:
            logits = torch.zeros(*input_ids.shape, 10)
            logits[..., 7] = 1.0  # always word 7; token 9 is likelier still, and no word of these episodes
            logits[..., 9] = 2.0
            return type("Output", (), {"logits": logits})

    episodes = [Episode((2, 3, 7, 3, 8), (2, 4), (7, 8)), Episode((2, 3, 8, 3, 8), (2, 4), (7, 8))]
    assert accuracy_by_place(Says(), episodes) == {0: 0.5, 1: 0.0}  # type: ignore[arg-type]


def test_a_task_of_one_label_is_refused(data: Path) -> None:
    one = {"pattern": "{text}", "data": {"source": "file:task.jsonl", "drop_labels": ["bad"]}}
    with pytest.raises(DataError, match="found the label good; expected at least two"):
        pretrain_on_text(recipe(tasks={"mood": one}), data / "out", base_folder=data)
    assert not (data / "out").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model": None}, "expected either model"),
        ({"start_from": "builtin:nli-student"}, "expected either model"),
        ({"tasks": {}}, "tasks is empty"),
        ({"document_pattern": "{sentence} answer:"}, "expected one with {text}"),
    ],
)
def test_recipes_that_contradict_themselves_are_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        recipe(**changes)


def test_learning_happens(data: Path) -> None:
    phase = (
        recipe()
        .phases[0]
        .model_copy(
            update={
                "steps": 150,
                "plain_share": 0.0,
                "document_share": 0.0,
                "fixed_share": 1.0,
                "warmup_steps": 10,
            }
        )
    )
    learned = recipe(phases=[phase.model_dump()], checkpoint_every_steps=1000, language_model_weight=0.0)
    pretrain_on_text(learned, data / "out", base_folder=data)
    model, tokenizer = load_model(data / "out"), load_tokenizer(data / "out")
    ids = tokenizer.encode("the song was dull on day 3 answer:").ids
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1].numpy()
    assert np.exp(logits - logits.max()).max() / np.exp(logits - logits.max()).sum() > 0.4
