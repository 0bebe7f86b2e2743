"""The planner's model of resident memory beside what processes really take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeicl.specs.quant_plan import Format, PromptAttention
from tests.resident_memory import FORMATS, GPT2_SHAPE, gated_shape, memory, shape

CONFIG = shape(hidden=512, layers=4, vocabulary=24_000)
TILED: PromptAttention = "tiled"
WHOLE: PromptAttention = "whole"
# What a session takes beside all that is counted: docs/results/resident-memory.md.
LEAST_SESSION_BYTES, MOST_SESSION_BYTES = 0, 32_000_000


@pytest.mark.parametrize("format_", FORMATS, ids=str)
def test_predicted_beside_measured(format_: Format, tmp_path: Path) -> None:
    found = memory(CONFIG, format_, prompt_tokens=32, folder=tmp_path)
    assert LEAST_SESSION_BYTES < found.session < MOST_SESSION_BYTES


@pytest.mark.parametrize("format_", FORMATS, ids=str)
def test_a_head_of_labels_alone_holds_the_table_once(format_: Format, tmp_path: Path) -> None:
    """At most what is predicted: pages of the table that no token reads may stay on the disk."""
    full, labels = (
        memory(CONFIG, format_, prompt_tokens=32, folder=tmp_path / str(alone), labels_alone=alone)
        for alone in (False, True)
    )
    assert labels.session < MOST_SESSION_BYTES
    saved = full.held - labels.held
    assert saved > 6_000_000
    assert full.peak - labels.peak > saved - 6_000_000


@pytest.mark.parametrize("prompt_tokens", [32, 1024])
@pytest.mark.parametrize(
    "config",
    [GPT2_SHAPE, gated_shape("llama", tied=False), gated_shape("qwen3", head_size=128)],
    ids=["gpt2", "llama", "qwen3"],
)
def test_other_architectures(config: dict[str, Any], prompt_tokens: int, tmp_path: Path) -> None:
    found = memory(config, FORMATS[1], prompt_tokens=prompt_tokens, folder=tmp_path)
    assert LEAST_SESSION_BYTES < found.session < MOST_SESSION_BYTES


@pytest.mark.parametrize("config", [GPT2_SHAPE, gated_shape("llama")], ids=["gpt2", "llama"])
def test_whole_attention_holds_its_scores(config: dict[str, Any], tmp_path: Path) -> None:
    """12 heads, 1,024 tokens: 50 MB, and so the runtime does go through them all at once.

    Held twice they would leave `session` its bound; processes of the same model differ by 5 MB.
    """
    tiled, whole = (
        memory(config, FORMATS[1], prompt_tokens=1024, folder=tmp_path / attention, attention=attention)
        for attention in (TILED, WHOLE)
    )
    assert LEAST_SESSION_BYTES < whole.session < MOST_SESSION_BYTES
    assert whole.peak - tiled.peak > 40_000_000


@pytest.mark.parametrize("config", [GPT2_SHAPE, gated_shape("llama")], ids=["gpt2", "llama"])
def test_keys_and_values_that_are_rounded_after_attention(config: dict[str, Any], tmp_path: Path) -> None:
    """In fp32 they are there for one layer at a time, twice over."""
    found = memory(config, FORMATS[1], prompt_tokens=1024, folder=tmp_path, attention=WHOLE, cache_bits=8)
    assert LEAST_SESSION_BYTES < found.session < MOST_SESSION_BYTES


def test_the_bytes_of_the_files_do_not_explain_it(tmp_path: Path) -> None:
    """Negative control."""
    found = memory(CONFIG, Format(bits=16), prompt_tokens=32, folder=tmp_path)
    assert found.peak - found.stored - found.rest > 2 * MOST_SESSION_BYTES
