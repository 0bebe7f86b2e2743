"""The decoder of other exporters' graphs: rows of a batch, padding and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeicl.models.growing_decoder import GrowingDecoder
from tests.unit.bench.test_runner import summing_graph


def test_rows_of_a_batch_are_read_without_their_padding(tmp_path: Path) -> None:
    """Logits are the row's sum of tokens times 0, 1, 2: a padding token that was read would be in them."""
    path = summing_graph(tmp_path / "model.onnx")
    decoder = GrowingDecoder(path, threads=1, context_tokens=6, batch_size=2)
    ids, mask = np.array([[1, 2, 3], [5, 100, 100]]), np.array([[1, 1, 1], [1, 0, 0]])
    assert decoder.prefill(ids, mask).tolist() == [[0.0, 6.0, 12.0], [0.0, 5.0, 10.0]]
    assert decoder.decode([1, 2]).tolist() == [[0.0, 7.0, 14.0], [0.0, 7.0, 14.0]]
    assert decoder.prefill(ids[:, :1]).tolist() == [[0.0, 1.0, 2.0], [0.0, 5.0, 10.0]]


def test_what_it_generates_is_the_likeliest_token_each_time(tmp_path: Path) -> None:
    decoder = GrowingDecoder(summing_graph(tmp_path / "model.onnx"), threads=1, context_tokens=8)
    assert decoder.generate([1, 2], 3) == [2, 2, 2]
    assert decoder.generate([0], 2) == [0, 0]  # all logits alike: the first


def test_other_padding_and_a_prefix_are_refused(tmp_path: Path) -> None:
    path = summing_graph(tmp_path / "model.onnx")
    decoder = GrowingDecoder(path, threads=1, context_tokens=6, batch_size=2)
    with pytest.raises(ValueError, match="pads elsewhere than on the right"):
        decoder.prefill(np.array([[1, 2], [3, 4]]), np.array([[0, 1], [1, 1]]))
    with pytest.raises(ValueError, match=r"shape \[1, 2\]; expected 2 rows"):
        decoder.prefill(np.array([[1, 2]]))
    with pytest.raises(ValueError, match="takes no prefix; found one of 1 arrays"):
        decoder.load_prefix({"past_key_values.0.key": np.zeros((1, 2, 1), np.float32)})
