"""Behind a prefix the decoder says what it says after the same tokens in one prompt."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeicl.emit.lowering import write_model
from edgeicl.emit.prefix import prefix_rows
from edgeicl.emit.weights import QuantizedWeights
from edgeicl.models.model_folder import model_config
from edgeicl.models.onnx_decoder import OnnxDecoder
from edgeicl.specs.quant_plan import Format
from tests.unit.emit.tiny_opt import make_student, write_quantized

BEFORE = [2, *range(40, 51)]
QUERIES = [[60, 61, 62], [70], [80, 81, 82, 83, 84]]
FP32, INT8, INT4 = Format(bits=32), Format(bits=8, block_size=32), Format(bits=4, block_size=32)
EXACT, INT8_ACTIVATIONS = 2e-5, 0.1
"""Shares of the largest logit: rounding of fp32, and of activations to int8 in blocks; as in emit/parity."""


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    make_student(folder)
    return folder


def model_in(student: Path, folder: Path, format_: Format) -> Path:
    write_quantized(student, folder, format_)
    write_model(folder, model_config(student), QuantizedWeights(folder))
    return folder / "model.onnx"


def padded(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    ids, mask = np.ones((len(rows), 5), np.int64), np.zeros((len(rows), 5), np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)], mask[index, : len(row)] = row, 1
    return ids, mask


def after(path: Path, row: list[int], tokens: list[int]) -> list[np.ndarray]:
    """Logits after the whole prompt and after each further token, without a prefix."""
    decoder = OnnxDecoder(path, threads=1, context_tokens=32)
    return [decoder.prefill(np.array([[*BEFORE, *row]])), *(decoder.decode([token]) for token in tokens)]


@pytest.mark.parametrize(
    ("format_", "tolerance"), [(FP32, EXACT), (INT8, INT8_ACTIVATIONS), (INT4, INT8_ACTIVATIONS)], ids=str
)
def test_prefix_and_query_are_the_whole_prompt(
    format_: Format, tolerance: float, student: Path, tmp_path: Path
) -> None:
    """Alone and in a batch of other lengths, after the query and while decoding, and a second time."""
    path = model_in(student, tmp_path, format_)
    rows = prefix_rows(tmp_path, np.array(BEFORE))
    batch = OnnxDecoder(path, threads=1, context_tokens=32, batch_size=3)
    batch.load_prefix(rows)
    for _ in range(2):
        found = [batch.prefill(*padded(QUERIES)), batch.decode([90, 91, 92]), batch.decode([93, 94, 95])]
        for index, query in enumerate(QUERIES):
            expected = after(path, query, [90 + index, 93 + index])
            for logits, one in zip(found, expected, strict=True):
                scale = np.abs(one).max()
                assert scale > 1
                np.testing.assert_allclose(logits[index], one[0], rtol=0, atol=tolerance * scale)


def test_a_wrong_prefix_is_seen(student: Path, tmp_path: Path) -> None:
    """Negative control: other tokens before, or the same in another order, change the answer."""
    path = model_in(student, tmp_path, FP32)
    expected = after(path, QUERIES[0], [])[0]
    for wrong in ([2, *range(41, 52)], BEFORE[::-1], BEFORE[:-1]):
        decoder = OnnxDecoder(path, threads=1, context_tokens=32)
        decoder.load_prefix(prefix_rows(tmp_path, np.array(wrong)))
        found = decoder.prefill(np.array([QUERIES[0]]))
        assert np.abs(found - expected).max() > 100 * EXACT * np.abs(expected).max()


def test_use_leaves_the_prefix_as_it_is_and_reset_returns_to_it(student: Path, tmp_path: Path) -> None:
    path = model_in(student, tmp_path, FP32)
    rows = prefix_rows(tmp_path, np.array(BEFORE))
    decoder = OnnxDecoder(path, threads=1, context_tokens=32, batch_size=2)
    decoder.load_prefix(rows)
    decoder.prefill(np.array([[60, 61], [62, 63]]))
    decoder.decode([64, 65])
    for name, values in rows.items():
        np.testing.assert_array_equal(decoder._cache[name][:, :, : len(BEFORE)], np.stack([values] * 2))
    decoder.reset()
    np.testing.assert_allclose(decoder.decode([70, 70])[0], after(path, [70], [])[0][0], rtol=0, atol=1e-4)


def test_a_longer_set_gives_way_to_a_shorter_one(student: Path, tmp_path: Path) -> None:
    path = model_in(student, tmp_path, FP32)
    used, fresh = (OnnxDecoder(path, threads=1, context_tokens=32) for _ in range(2))
    used.load_prefix(prefix_rows(tmp_path, np.array(BEFORE)))
    used.prefill(np.array([[60, 61]]))
    short = prefix_rows(tmp_path, np.array(BEFORE[:3]))
    for decoder in (used, fresh):
        decoder.load_prefix(short)
    np.testing.assert_array_equal(used.prefill(np.array([[60, 61]])), fresh.prefill(np.array([[60, 61]])))


def test_rows_that_do_not_fit_are_refused(student: Path, tmp_path: Path) -> None:
    path = model_in(student, tmp_path, FP32)
    rows = dict(prefix_rows(tmp_path, np.array(BEFORE)))
    decoder = OnnxDecoder(path, threads=1, context_tokens=16)
    first, *others = rows
    for wrong in (
        {name: rows[name] for name in others},
        rows | {first: rows[first][:, :5]},
        {name: values[:2] for name, values in rows.items()},
        {name: values[..., :8] for name, values in rows.items()},
        {name: values[:, :0] for name, values in rows.items()},
        {name: values[0] for name, values in rows.items()},
        {},
    ):
        with pytest.raises(ValueError, match="a prefix of"):
            decoder.load_prefix(wrong)
    with pytest.raises(ValueError, match=r"a prefix of 12 tokens; expected 1\.\.11"):
        OnnxDecoder(path, threads=1, context_tokens=12).load_prefix(rows)
    decoder.load_prefix(rows)
    with pytest.raises(ValueError, match=r"prompt of shape \[1, 5\]; expected \[1, 1\.\.4\]"):
        decoder.prefill(np.full((1, 5), 60))
    decoder.prefill(np.full((1, 4), 60))
    with pytest.raises(ValueError, match="the context of 16 tokens is full"):
        decoder.decode([60])


def test_vectors_in_the_place_of_embeddings_are_the_tokens_themselves(student: Path, tmp_path: Path) -> None:
    """The embedding rows of some tokens, handed over as vectors, give these tokens' keys and values."""
    model_in(student, tmp_path, INT4)
    table = QuantizedWeights(tmp_path).dense("embedding")
    as_tokens = prefix_rows(tmp_path, np.array(BEFORE))
    as_vectors = prefix_rows(tmp_path, table[BEFORE])
    for name, values in as_tokens.items():
        np.testing.assert_allclose(as_vectors[name], values, rtol=0, atol=1e-5 * np.abs(values).max())
    other = prefix_rows(tmp_path, table[BEFORE] * np.float32(1.01))
    assert max(np.abs(other[name] - values).max() for name, values in as_tokens.items()) > 1e-3
