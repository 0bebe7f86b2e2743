from __future__ import annotations

import numpy as np

from edgeicl.distill.predictions import ONLY, accuracy_rows
from edgeicl.tasks.example import Example
from edgeicl.tasks.prompt import PromptEncoder
from tests.unit.byte_tokenizer import byte_tokenizer


def test_values_stand_in_the_order_of_the_recipes_seeds() -> None:
    """Seed 10 comes after seed 2, though not as text."""
    encoder = PromptEncoder(
        byte_tokenizer(), pattern="{text}", verbalizers={"yes": " Yes", "no": " No"}, separator="\n"
    )
    examples = [Example({"text": "a"}, "yes"), Example({"text": "b"}, "no")]
    predictions = {
        "tuned/in_domain/seed_10": np.array([0, 0]),
        "tuned/in_domain/seed_2": np.array([0, 1]),
        "tuned/in_domain/seed_1": np.array([1, 0]),
        "plain/in_domain/only": np.array([1, 1]),
    }
    plain, tuned = accuracy_rows(
        ["absent", "plain", "tuned"],
        predictions,
        {"in_domain": examples},
        encoder,
        runs=[ONLY, "seed_2", "seed_10", "seed_1"],
    )
    assert tuned.accuracy.values == (1.0, 0.5, 0.0)
    assert (plain.method, plain.accuracy.values) == ("plain", (0.5,))
