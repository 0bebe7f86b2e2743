"""Two ways to the targets give equal results, and scoring takes no more memory than was estimated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import OPTConfig, OPTForCausalLM

from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.scoring import pack_tokens, scoring_size
from edgeicl.distill.teacher_speed import compare_ways, scoring_memory, teacher_speed
from edgeicl.errors import BenchError
from edgeicl.models.memory import LoadIn, needed_bytes, scoring_bytes
from edgeicl.specs.recipe import Recipe
from edgeicl.store import Store

QUERIES = [[3 + n % 50, *range(5, 9 + n % 7)] for n in range(90)]
BEFORE = [0, *(100 + n % 90 for n in range(150))]


@pytest.mark.parametrize("tokens", [[(40,), (50,)], [(40, 41), (50,), (40, 44)]])
def test_both_ways_give_the_same_scores_by_turns(
    opt: Callable[..., OPTForCausalLM], tokens: list[tuple[int, ...]]
) -> None:
    reader = LabelReader(opt(seed=1))
    found = compare_ways(reader, QUERIES, tokens, before=BEFORE, plain_queries=5)
    assert (found.queries, found.plain_queries, found.context_tokens) == (90, 5, 151)
    assert found.largest_difference < 1e-4 < 0.1 < found.spread
    assert found.ratio == pytest.approx(found.plain_s * 90 / found.targets_s)
    other = compare_ways(LabelReader(opt(seed=2)), QUERIES, tokens, before=BEFORE, plain_queries=5)
    assert abs(other.plain_log_probabilities[0][0] - found.plain_log_probabilities[0][0]) > 1e-3


def test_a_recipes_teacher(recipe: Recipe, tmp_path: Path) -> None:
    found = teacher_speed(recipe, store=Store(tmp_path), base_folder=tmp_path, queries=12, plain_queries=99)
    assert found.compared.plain_queries == found.compared.queries == 12
    assert [entry.queries for entry in found.memory] == [1, 6]
    assert list(tmp_path.iterdir()) == []  # nothing is built


def middle_sized(folder: Path, dtype: torch.dtype) -> Path:
    """40 million weights: what a process takes beside its model is small against it.

    Stored as they are loaded: else both are mapped for a while, which the system could take back at any time.
    """
    torch.manual_seed(0)
    sizes = {"hidden_size": 512, "word_embed_proj_dim": 512, "ffn_dim": 2048, "num_hidden_layers": 8}
    config = OPTConfig(vocab_size=30000, num_attention_heads=8, max_position_embeddings=1024, **sizes)
    OPTForCausalLM(config).to(dtype).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("load_in", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_memory_is_bounded_by_the_pack_and_by_the_estimate(
    tmp_path: Path, load_in: LoadIn, dtype: torch.dtype
) -> None:
    folder = middle_sized(tmp_path, dtype)
    before = [2, *range(10, 800)]
    queries = [[5 + n, *range(1000, 1040)] for n in range(64)]
    few, many = (
        scoring_memory(folder, load_in, queries[:count], [(40,), (50,)], before=before).peak_rss_bytes
        for count in (8, 64)
    )
    scoring = scoring_size(queries, [(40,), (50,)], before=before, over="verbalizers", device_type="cpu")
    assert (scoring.prefix_tokens, scoring.pass_tokens, scoring.full_logits) == (791, pack_tokens("cpu"), 0)
    weights = needed_bytes(folder, load_in)
    estimate = weights + scoring_bytes(folder, load_in, scoring)
    assert many < 1.2 * few  # what the C library keeps of freed activations differs by 10 MB from run to run
    assert 0.6 * estimate < many < 1.1 * estimate
    # Negative control: the weights are in what was measured, but for the table's rows that no token asks for.
    (file,) = folder.glob("*.safetensors")
    table_bytes = 30000 * 512 * dtype.itemsize
    assert many > file.stat().st_size - table_bytes


def test_a_process_that_fails_is_told(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"(?s)exit code 1:.*no config\.json|no \*\.safetensors|no weights"):
        scoring_memory(tmp_path, "fp32", QUERIES, [(40,), (50,)], before=BEFORE)
