"""What a CUDA device computes, against the CPU. Skipped, with the reason, where there is none.

`EDGEICL_TEST_DEVICE=cpu pytest tests/gpu` runs the same code without one, to check the tests themselves.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import PartialState
from accelerate.state import AcceleratorState
from transformers import OPTConfig, OPTForCausalLM

from edgeicl.distill.label_reader import LabelReader, Over
from edgeicl.distill.scoring import score_queries, scoring_size
from edgeicl.distill.student import distill_student
from edgeicl.distill.trainer import TrainingSettings
from edgeicl.models.loading import load_model, load_tokenizer
from edgeicl.models.memory import needed_bytes, scoring_bytes
from edgeicl.models.model_folder import model_folder
from edgeicl.specs.source import Source
from edgeicl.tasks.prompt import PromptEncoder
from edgeicl.tasks.readers import read_examples
from tests.killed_training import counted_steps, killed_before
from tests.trained_weights import relative_difference

CPU = torch.device("cpu")
TEACHER, STUDENT = model_folder("builtin:nli-teacher"), model_folder("builtin:nli-student")
LABELS = {"entailment": " Yes", "contradiction": " No"}
SETTINGS = TrainingSettings(
    learning_rate=3e-4, epochs=1, batch_size=8, warmup_ratio=0.2, checkpoint_every_steps=2
)
# Bounds, not yet measured on CUDA. bf16 keeps 8 bits of mantissa; 8- and 4-bit loading round the weights.
SCORES = {"fp32": 1e-3, "bf16": 0.1, "8bit": 0.2, "4bit": 0.5}
# Other kernels add in another order, and atomic additions in none: of how far training moves the weights.
TRAINED = 1e-2


@pytest.fixture
def device() -> torch.device:
    name = os.environ.get("EDGEICL_TEST_DEVICE", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    return torch.device(name)


@pytest.fixture(autouse=True)
def _own_accelerate_state() -> Iterator[None]:
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    pattern = "{premise} so {hypothesis}?"
    return PromptEncoder(load_tokenizer(TEACHER), pattern=pattern, verbalizers=LABELS, separator="\n")


EXAMPLES = read_examples(
    Source(source="builtin:nli", split="train", limit=44), labels=tuple(LABELS), base_folder=Path()
)
SHOWN, QUERIES = EXAMPLES[:4], EXAMPLES[4:]


def scores(
    encoder: PromptEncoder, device: torch.device, *, load_in: str, shown: bool, over: Over
) -> np.ndarray:
    reader = LabelReader(load_model(TEACHER, load_in, device=device))  # type: ignore[arg-type]
    before = encoder.demonstrations(SHOWN if shown else [])
    tokens = list(encoder.tokens.values())
    return score_queries(reader, encoder.queries(QUERIES), tokens, before=before, over=over)


@pytest.mark.parametrize("over", ["verbalizers", "vocabulary"])
@pytest.mark.parametrize("shown", [False, True], ids=["alone", "prefix"])
@pytest.mark.parametrize("load_in", list(SCORES))
def test_the_teacher_scores_as_on_the_cpu(
    device: torch.device, encoder: PromptEncoder, load_in: str, shown: bool, over: Over
) -> None:
    if load_in in ("8bit", "4bit") and device == CPU:
        pytest.skip("8 and 4 bits need CUDA")
    expected = scores(encoder, CPU, load_in="fp32", shown=shown, over=over)
    # Over the vocabulary the rare words' log-probabilities are large, and so is what rounding does to them.
    likely = expected > np.log(1e-3)
    found = scores(encoder, device, load_in=load_in, shown=shown, over=over)
    assert np.abs(found - expected)[likely].max() < SCORES[load_in]
    other = scores(encoder, CPU, load_in="fp32", shown=not shown, over=over)
    assert np.abs(other - expected)[likely].max() > 2 * SCORES["4bit"]  # negative control


@pytest.mark.parametrize("load_in", list(SCORES))
def test_labels_are_read_as_the_vocabulary_has_them(
    device: torch.device, encoder: PromptEncoder, load_in: str
) -> None:
    """Rows of the head, where it is no quantized one, against the whole head."""
    if load_in in ("8bit", "4bit") and device == CPU:
        pytest.skip("8 and 4 bits need CUDA")
    words = scores(encoder, device, load_in=load_in, shown=True, over="vocabulary")
    words = words[:, [word for (word,) in encoder.tokens.values()]]
    labels = scores(encoder, device, load_in=load_in, shown=True, over="verbalizers")
    expected = words - np.log(np.exp(words).sum(-1, keepdims=True))
    # Logits are rounded to the model's type before they are compared; log-probabilities reach -10.
    assert np.abs(labels - expected).max() < (1e-4 if load_in == "fp32" else 0.1)


@pytest.mark.parametrize("load_in", list(SCORES))
def test_the_teacher_takes_no_more_memory_than_was_estimated(
    device: torch.device, load_in: str, tmp_path: Path
) -> None:
    if device == CPU:
        pytest.skip("counts what torch allocates on CUDA; the CPU's bound is in test_teacher_speed.py")
    sizes = {"hidden_size": 512, "word_embed_proj_dim": 512, "ffn_dim": 2048, "num_hidden_layers": 8}
    config = OPTConfig(vocab_size=30000, num_attention_heads=8, max_position_embeddings=1024, **sizes)
    OPTForCausalLM(config).save_pretrained(tmp_path)
    before, queries = [2, *range(10, 800)], [[5 + n, *range(1000, 1040)] for n in range(64)]
    size = scoring_size(queries, [(40,), (50,)], before=before, over="verbalizers", device_type="cuda")
    estimate = needed_bytes(tmp_path, load_in) + scoring_bytes(tmp_path, load_in, size)  # type: ignore[arg-type]
    torch.cuda.reset_peak_memory_stats(device)
    start = torch.cuda.memory_allocated(device)
    reader = LabelReader(load_model(tmp_path, load_in, device=device))  # type: ignore[arg-type]
    score_queries(reader, queries, [(40,), (50,)], before=before)
    assert torch.cuda.max_memory_allocated(device) - start < 1.1 * estimate


def trained(
    encoder: PromptEncoder,
    device: torch.device,
    over: Over,
    *,
    checkpoint: Path | None = None,
    seed: int = 0,
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Weights and losses of a student after 5 steps towards the teacher's targets."""
    targets = scores(encoder, CPU, load_in="fp32", shown=True, over=over)
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState(cpu=device == CPU)
    reader = LabelReader(load_model(STUDENT, device=device))
    losses = distill_student(
        reader,
        rows=encoder.prompts(QUERIES),
        tokens=list(encoder.tokens.values()),
        targets=targets,
        gold=encoder.label_indices(QUERIES),
        over=over,
        kl=1.0,
        ce=0.1,
        temperature=1.0,
        settings=SETTINGS,
        seed=seed,
        checkpoint_folder=checkpoint,
    )
    assert reader.device.type == device.type
    assert len(losses) == 5
    return dict(reader.state_dict()), losses


def untrained() -> dict[str, torch.Tensor]:
    return dict(LabelReader(load_model(STUDENT)).state_dict())


@pytest.mark.parametrize("over", ["verbalizers", "vocabulary"])
def test_training_ends_where_it_ends_on_the_cpu(
    device: torch.device, encoder: PromptEncoder, over: Over
) -> None:
    expected, expected_losses = trained(encoder, CPU, over)
    found, losses = trained(encoder, device, over)
    assert losses == pytest.approx(expected_losses, rel=1e-3)
    assert relative_difference(expected, found, untrained()) < TRAINED
    other, _ = trained(encoder, CPU, over, seed=1)
    assert relative_difference(expected, other, untrained()) > 10 * TRAINED  # negative control


def test_a_killed_training_goes_on(device: torch.device, encoder: PromptEncoder, tmp_path: Path) -> None:
    """To the same bits on the CPU; on CUDA, of which that is not shown, within what its kernels may differ."""
    whole, whole_losses = trained(encoder, device, "verbalizers")
    with killed_before(3):
        trained(encoder, device, "verbalizers", checkpoint=tmp_path)
    with counted_steps() as steps:
        resumed, losses = trained(encoder, device, "verbalizers", checkpoint=tmp_path)
    assert steps == [2, 3, 4]
    assert losses == pytest.approx(whole_losses, rel=1e-3)
    assert relative_difference(whole, resumed, untrained()) < TRAINED
    if device == CPU:
        assert all(torch.equal(value, resumed[name]) for name, value in whole.items())
