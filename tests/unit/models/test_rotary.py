"""How far queries and keys turn from one token to the next, on paper."""

from __future__ import annotations

import math
from typing import Any

import pytest

from edgeicl.models.rotary import inverse_frequencies


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"rope_theta": 10000.0, "rope_scaling": None},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    ],
)
def test_two_pairs_of_numbers(config: dict[str, Any]) -> None:
    """10000 to the power of 0 and of -1/2; as configurations of transformers 4 and 5 say it."""
    assert inverse_frequencies(config, 4).tolist() == pytest.approx([1.0, 0.01])


@pytest.mark.parametrize("key", ["type", "rope_type"])
def test_linear_divides_all(key: str) -> None:
    config = {"rope_scaling": {key: "linear", "factor": 2.0}}
    assert inverse_frequencies(config, 4).tolist() == pytest.approx([0.5, 0.005])


def test_llama3_slows_what_turns_less_often_than_the_original_context_asks() -> None:
    """In 64·2π tokens 1, 1/16 and 1/256 radians turn 64, 4 and 1/4 times; the last is slowed.

    Between 1 and 16 turns lies a smooth change: 4 turns are 3/15 of the way, so 1/5 stays as it is.
    """
    config = {
        "rope_theta": 4096.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 16.0,
            "original_max_position_embeddings": 64 * 2 * math.pi,
        },
    }
    found = inverse_frequencies(config, 6).tolist()
    assert found == pytest.approx([1.0, (1 / 16) * (1 / 5 + 4 / 5 / 8), 1 / 256 / 8])
