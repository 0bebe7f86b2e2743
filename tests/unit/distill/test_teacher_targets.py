"""Scores that a killed run had made are not made again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from transformers import OPTForCausalLM

from edgeicl.distill import channel_scoring
from edgeicl.distill.label_reader import LabelReader
from edgeicl.distill.teacher_targets import build_gain, read_targets
from edgeicl.store import ALONE
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder


def test_a_killed_gain_goes_on_at_the_next_demonstration_set(
    opt: Callable[..., OPTForCausalLM], tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = PromptEncoder(tokenizer, pattern="{a}:", verbalizers={"yes": " Yes", "no": " No"}, separator="\n")
    examples = [Example({"a": f"text {i}"}, ("yes", "no")[i % 2]) for i in range(8)]
    contexts = {f"seed_{n}": encoder.demonstrations(examples[n : n + 2]) for n in range(2)}
    reader = LabelReader(opt(seed=0))
    scored: list[int] = []
    real = channel_scoring.score_slices

    def build(folder: Path, *, dies_at: int = 99) -> dict[str, Any]:
        def score(*arguments: Any, **named: Any) -> Any:
            for scores in real(*arguments, **named):
                if len(scored) == dies_at:
                    raise KeyboardInterrupt
                scored.append(len(named["before"]))
                yield scores

        monkeypatch.setattr(channel_scoring, "score_slices", score)
        folder.mkdir(exist_ok=True)
        build_gain(
            folder,
            lambda: reader,
            encoder,
            examples,
            contexts=contexts,
            over="verbalizers",
            workers=ALONE,
        )
        return read_targets(folder)

    whole = build(tmp_path / "whole")
    scored.clear()
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "killed", dies_at=2)
    resumed = build(tmp_path / "killed")
    assert len(scored) == 3  # without demonstrations, and two sets: each once
    damaged = tmp_path / "killed" / "checkpoint" / "seed_0" / "00000000.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    again = build(tmp_path / "killed")
    assert len(scored) == 4  # a flipped byte is not used
    assert np.array_equal(again["seed_0"], whole["seed_0"])
    assert whole.keys() == resumed.keys()
    for name, values in whole.items():
        assert np.array_equal(values, resumed[name])
