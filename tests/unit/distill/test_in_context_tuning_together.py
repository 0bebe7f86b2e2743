"""In-context tuning on two processes, one of which calls the model more often in a step than the other."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from edgeicl.distill.in_context_tuning import tune_in_context
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.trainer import TrainingSettings
from edgeicl.distill.training_plan import batch_order
from edgeicl.distill.tuning_episodes import Episode, by_words
from tests.trained_weights import ROUNDING, relative_difference
from tests.unit.distill.two_processes import launch

REPOSITORY = Path(__file__).parents[3]
SETTINGS = TrainingSettings(
    learning_rate=3e-3, epochs=2, batch_size=3, warmup_ratio=0.25, checkpoint_every_steps=100
)
WORDS = (((40,), (50,)), ((60,), (70,), (80,)))


def episodes() -> list[Episode]:
    """Of two tasks, whose words differ."""
    return [
        Episode((0, 20 + number, *range(90, 92 + number % 3)), (2 + number % 3,), (number % 2,), words)
        for number, words in enumerate(WORDS * 6)
    ]


def llama() -> LabelReader:
    """Random weights, and the buffers that rotary positions have."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=32,
        initializer_range=0.2,
    )
    model = LlamaForCausalLM(config).eval()
    assert list(model.buffers())
    return LabelReader(model)


def weights(reader: LabelReader) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in reader.model.named_parameters()}


def tuned() -> dict[str, torch.Tensor]:
    """Weights after the tuning, by this process alone or by all of its launch."""
    reader = llama()
    tune_in_context(reader, episodes(), over="verbalizers", ce=1.0, settings=SETTINGS, seed=0)
    return weights(reader)


def test_processes_with_other_numbers_of_label_words_train_the_same_model(tmp_path: Path) -> None:
    drawn = episodes()
    order = batch_order([len(one.ids) for one in drawn], batch_size=3, epochs=2, seed=0)
    calls = [[len(by_words(drawn, batch[rank::2].tolist())) for rank in (0, 1)] for batch in order]
    assert any(first != second for first, second in calls)

    program = tmp_path / "program.py"
    program.write_text(
        "import sys, torch\n"
        "from accelerate import PartialState\n"
        "from tests.unit.distill.test_in_context_tuning_together import tuned\n"
        "PartialState(cpu=True)\n"
        "trained = tuned()\n"
        "if PartialState().is_main_process:\n"
        "    torch.save(trained, sys.argv[1])\n"
    )
    launch(program, str(tmp_path / "weights.pt"))
    together = torch.load(tmp_path / "weights.pt")
    assert relative_difference(tuned(), together, weights(llama())) < ROUNDING
