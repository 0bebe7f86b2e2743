"""What several demonstration sets answer together: options of a row, and ranks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from edgeicl.distill import voting
from edgeicl.distill.predictions import Predictor
from edgeicl.distill.voting import voted_predictions
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder

# Two sets, two rows, three labels. Means are [0.45, 0.30, 0.25] and [0.35, 0.25, 0.40].
SHARES = [[[0.5, 0.4, 0.1], [0.3, 0.1, 0.6]], [[0.4, 0.2, 0.4], [0.4, 0.4, 0.2]]]


def predicted(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, folder: Path, examples: list[Example]
) -> list[list[int]]:
    """Answers and ranks of `examples` by `SHARES`."""
    encoder = PromptEncoder(
        tokenizer, pattern="{text}", verbalizers={label: label for label in "abc"}, separator=" "
    )
    scores = np.log(np.array(SHARES, dtype=np.float32))
    monkeypatch.setattr(voting, "scores_after", lambda *_, **__: {"seed_0": scores})
    predictor = Predictor(encoder, {"in_domain": examples[:1], "out_of_domain": examples[1:]})
    found = voted_predictions(
        predictor, lambda: pytest.fail("no model is needed"), "m", {"seed_0": [[0], [0]]}, kept=folder
    )
    assert set(found) == {
        f"m/{data}/seed_0{ending}" for data in ("in_domain", "out_of_domain") for ending in ("", "/rank")
    }
    return [
        [int(found[f"m/{data}/seed_0{ending}"][0]) for data in ("in_domain", "out_of_domain")]
        for ending in ("", "/rank")
    ]


def test_ranks_are_by_the_mean_probability(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And a tied vote goes to the label whose mean is higher."""
    examples = [Example({"text": "x"}, "b"), Example({"text": "y"}, "b")]
    assert predicted(tokenizer, monkeypatch, tmp_path, examples) == [[0, 2], [2, 3]]


def test_a_row_is_answered_with_one_of_its_own_options(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of b and c alone, the first row's shares are 4/5 and 1/5, then 1/3 and 2/3: b by the mean, 17/30."""
    examples = [
        Example({"text": "x"}, "c", options=("b", "c")),
        Example({"text": "y"}, "b", options=("a", "b")),
    ]
    assert predicted(tokenizer, monkeypatch, tmp_path, examples) == [[1, 0], [2, 2]]
