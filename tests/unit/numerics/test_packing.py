"""Packing: bits in the order that both operators read: by hand, by round trip, against the operators."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgeicl.errors import DataError
from edgeicl.numerics.packing import gather_shape, matmul_shape, pack_rows


def test_bits_lie_low_first() -> None:
    assert pack_rows(np.array([[1, 2, 15, 0]], np.uint8), 4).tolist() == [[0x21, 0x0F]]
    assert pack_rows(np.array([[1, 2, 3, 0]], np.uint8), 2).tolist() == [[0b00_11_10_01]]
    assert pack_rows(np.array([[200, 7]], np.uint8), 8).tolist() == [[200, 7]]


def test_rows_are_padded_apart() -> None:
    """Each row of zero points starts on its own byte, so an odd count leaves half a byte of zeros."""
    assert pack_rows(np.array([[1, 2, 3], [4, 5, 6]], np.uint8), 4).tolist() == [[0x21, 0x03], [0x54, 0x06]]
    assert pack_rows(np.array([[3], [1]], np.uint8), 2).tolist() == [[3], [1]]


@settings(deadline=None, max_examples=60)
@given(st.sampled_from([2, 4, 8]), st.integers(1, 5), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_unpacking_returns_the_codes(bits: int, rows: int, columns: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, (rows, columns), dtype=np.uint8)
    packed = pack_rows(codes, bits)
    assert packed.shape == (rows, -(-columns * bits // 8))
    place = np.arange(columns)
    # code n of a row lies in byte n // per_byte, above the codes before it
    per_byte = 8 // bits
    unpacked = packed[:, place // per_byte] >> (place % per_byte * bits).astype(np.uint8) & (2**bits - 1)
    np.testing.assert_array_equal(unpacked, codes)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("block_size", [16, 32, 64, 128, 256])
@pytest.mark.parametrize("symmetric", [True, False])
def test_both_operators_read_the_same_bytes(bits: int, block_size: int, symmetric: bool) -> None:
    """One copy of codes, scales and zero points serves the embedding and the head tied to it."""
    rows, columns = 12, 3 * block_size
    weights, embedded, product, inputs = _run(bits, block_size, symmetric, rows, columns)
    np.testing.assert_array_equal(embedded, weights)
    expected = inputs.astype(np.float64) @ weights.T.astype(np.float64)
    np.testing.assert_allclose(product, expected, rtol=0, atol=2e-6 * np.abs(expected).max())


def test_codes_one_block_off_are_seen() -> None:
    """Negative control of the test above."""
    weights, embedded, product, inputs = _run(4, 16, True, 12, 48, roll=16)
    expected = inputs @ weights.T
    assert np.abs(embedded - weights).max() > 0.1
    assert np.abs(product - expected).max() > 0.01 * np.abs(expected).max()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match=r"code 16 doesn't fit 4 bits; expected 0\.\.15"):
        pack_rows(np.array([[16]], np.uint8), 4)
    with pytest.raises(DataError, match="no kernel packs 3 bits"):
        pack_rows(np.zeros((1, 8), np.uint8), 3)
    with pytest.raises(DataError, match=r"int64 \[1, 8\]; expected a uint8 matrix"):
        pack_rows(np.zeros((1, 8), np.int64), 4)  # type: ignore[arg-type]  # the error is what is tested


def _run(
    bits: int, block_size: int, symmetric: bool, rows: int, columns: int, *, roll: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Weights, what GatherBlockQuantized and MatMulNBits make of them, and the input of the latter."""
    random = np.random.default_rng(bits * block_size)
    blocks = columns // block_size
    codes = random.integers(0, 2**bits, (rows, columns), dtype=np.uint8)
    scales = (random.random((rows, blocks), dtype=np.float32) + 0.1) * random.choice([-1, 1], (rows, blocks))
    scales = scales.astype(np.float32)
    zero_points = random.integers(0, 2**bits, (rows, blocks), dtype=np.uint8)
    zero = np.full_like(zero_points, 2 ** (bits - 1)) if symmetric else zero_points
    weights = (codes.astype(np.float32) - np.repeat(zero, block_size, axis=1)) * np.repeat(
        scales, block_size, axis=1
    )

    packed = pack_rows(np.roll(codes, roll, axis=1), bits)
    constants = [
        numpy_helper.from_array(packed.reshape(matmul_shape(rows, columns, bits, block_size)), "codes"),
        numpy_helper.from_array(packed.reshape(gather_shape(rows, columns, bits, block_size)), "rows"),
        numpy_helper.from_array(scales, "scales"),
        numpy_helper.from_array(pack_rows(zero_points, bits), "zero_points"),
    ]
    zero_input = [] if symmetric else ["zero_points"]
    fused = {"domain": "com.microsoft", "bits": bits, "block_size": block_size}
    graph = helper.make_graph(
        [
            helper.make_node(
                "GatherBlockQuantized",
                ["rows", "ids", "scales", *zero_input],
                ["embedded"],
                gather_axis=0,
                quantize_axis=1,
                **fused,
            ),
            helper.make_node(
                "MatMulNBits", ["x", "codes", "scales", *zero_input], ["product"], K=columns, N=rows, **fused
            ),
        ],
        "both",
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, [None]),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, columns]),
        ],
        [
            helper.make_tensor_value_info("embedded", TensorProto.FLOAT, None),
            helper.make_tensor_value_info("product", TensorProto.FLOAT, None),
        ],
        constants if not symmetric else constants[:-1],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    inputs = random.standard_normal((3, columns), dtype=np.float32)
    embedded, product = session.run(None, {"ids": np.arange(rows), "x": inputs})
    return weights, embedded, product, inputs
