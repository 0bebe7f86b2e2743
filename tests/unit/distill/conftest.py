"""Tiny random models, made where they are needed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer
from transformers import OPTConfig, OPTForCausalLM

from edgeicl.specs.recipe import Recipe
from tests.unit.byte_tokenizer import byte_tokenizer


def tiny_opt(*, seed: int, layers: int = 2, width: int = 32, positions: int = 512) -> OPTForCausalLM:
    """Random weights, large enough for logits to differ."""
    torch.manual_seed(seed)
    config = OPTConfig(
        vocab_size=264,
        hidden_size=width,
        word_embed_proj_dim=width,
        num_hidden_layers=layers,
        ffn_dim=2 * width,
        num_attention_heads=4,
        max_position_embeddings=positions,
        init_std=0.2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return OPTForCausalLM(config).eval()


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return byte_tokenizer()


@pytest.fixture(scope="session")
def opt() -> Callable[..., OPTForCausalLM]:
    return tiny_opt


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A teacher and a student in the hub's layout."""
    folders = []
    for name, seed in (("teacher", 1), ("student", 2)):
        folder = tmp_path_factory.mktemp(name)
        tiny_opt(seed=seed, layers=2 if name == "teacher" else 1).save_pretrained(folder)
        byte_tokenizer().save(str(folder / "tokenizer.json"))
        folders.append(folder)
    return folders[0], folders[1]


@pytest.fixture(scope="session")
def recipe(model_folders: tuple[Path, Path]) -> Recipe:
    """A recipe small enough for a second's work; its random teacher has no gain, so the gate is off."""
    teacher, student = model_folders
    source = {"source": "builtin:nli", "limit": 80}
    return Recipe.model_validate(
        {
            "version": 1,
            "name": "tiny",
            "task": {
                "pattern": "{premise}. {hypothesis}?",
                "verbalizers": {"entailment": " Yes", "contradiction": " No"},
                "separator": "\n",
                "train": source | {"split": "train"},
                "in_domain": source | {"split": "test", "limit": 30},
                "out_of_domain": source | {"split": "out_of_domain", "limit": 30},
            },
            "distill": {
                "teacher": {"model": str(teacher)},
                "student": {"model": str(student)},
                "demonstrations": {"count": 2, "seeds": [0, 1]},
                "transfer_examples": 60,
                "training": {"epochs": 1, "batch_size": 8, "checkpoint_every_steps": 3},
                "baseline_epochs": 2,
                "require_gain": False,
            },
        }
    )
