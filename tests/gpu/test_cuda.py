"""What needs a CUDA device. Skipped, with the reason, where there is none."""

from __future__ import annotations

import pytest
import torch

from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.scoring import score_queries
from edgeicl.models.loading import load_model, load_tokenizer
from edgeicl.models.model_folder import model_folder
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device")

EXAMPLES = [
    Example({"premise": premise, "hypothesis": hypothesis}, "entailment")
    for premise, hypothesis in (
        ("the dog chased the cat today", "the cat was chased by the dog"),
        ("the old judge rested yesterday", "the judge rested"),
    )
]


# Bounds, not yet measured: bf16 keeps 8 bits of mantissa; 8- and 4-bit loading round the weights.
@pytest.mark.parametrize(
    ("load_in", "tolerance"), [("fp32", 1e-3), ("bf16", 0.1), ("8bit", 0.2), ("4bit", 0.5)]
)
def test_the_teacher_on_cuda_scores_as_on_the_cpu(load_in: str, tolerance: float) -> None:
    folder = model_folder("builtin:nli-teacher")
    encoder = PromptEncoder(
        load_tokenizer(folder),
        pattern="{premise} so {hypothesis}?",
        verbalizers={"entailment": " Yes", "contradiction": " No"},
        separator="\n",
    )
    queries = encoder.prompts(EXAMPLES)
    tokens = list(encoder.tokens.values())
    scores = {}
    for name, device in (("fp32", "cpu"), (load_in, "cuda")):
        reader = LabelReader(load_model(folder, name, device=torch.device(device)))  # type: ignore[arg-type]
        scores[device] = score_queries(reader, queries, tokens, before=(), over="verbalizers")
    assert abs(scores["cpu"] - scores["cuda"]).max() < tolerance
