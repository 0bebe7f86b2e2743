"""What choosing bits and rounding hold in memory is a layer of the student, not all of them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoConfig, AutoModelForCausalLM

from tests.e2e.small_build import REPOSITORY
from tests.unit.emit.tiny_opt import tiny_tokenizer

HIDDEN, LAYERS = 256, 32
FP16_BYTES = 2 * LAYERS * 12 * HIDDEN**2
OPTIONS = (
    *("--set", "quantize.importance=cosine", "--set", "quantize.calibration_examples=2"),
    *("--target-set", "formats=[{bits: 4, block_size: 64}]", "--target-set", "budget.resident_bytes=null"),
    *("--target-set", "budget.artifact_bytes=100MB"),
)


def _student(folder: Path, layers: int) -> Path:
    folder.mkdir()
    tokenizer = tiny_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    sizes = {
        "hidden_size": HIDDEN,
        "word_embed_proj_dim": HIDDEN,
        "ffn_dim": 4 * HIDDEN,
        "num_attention_heads": 4,
    }
    config = AutoConfig.for_model(
        "opt", vocab_size=tokenizer.get_vocab_size(), num_hidden_layers=layers, **sizes
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("held_bytes", "streams"), [(0, True), (10**9, False)])
def test_the_peak_is_below_the_students_size(held_bytes: int, streams: bool, tmp_path: Path) -> None:
    """Above the peak of two layers; held, as the negative control, it takes more than all weights in fp32."""
    small, large = _student(tmp_path / "small", 2), _student(tmp_path / "large", LAYERS)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "tests.streaming_memory", str(large), "--warm-up", str(small)),
            *("--quantize-only", "--held-bytes", str(held_bytes)),
            *OPTIONS,
        ],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
    )
    grown = json.loads(done.stdout)["above_warm_up_bytes"]
    assert (grown < 1.3 * FP16_BYTES) == streams
    if not streams:
        assert grown > 2 * FP16_BYTES
