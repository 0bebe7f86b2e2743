"""Bytes of weight groups, on paper and against what packing really makes."""

from __future__ import annotations

import numpy as np
import pytest

from edgeicl.numerics.affine import round_to_nearest
from edgeicl.numerics.packing import pack_rows
from edgeicl.numerics.size import group_bytes, held_bytes, kv_cache_bytes, prefill_bytes
from edgeicl.specs.quant_plan import Format


def test_on_paper() -> None:
    # 10 rows of 64: 10*64/2 codes, 10*2 scales of 4 bytes, and 10 rows of 2 zero points in one byte
    assert group_bytes(10, 64, Format(bits=4, block_size=32)) == 320 + 80
    assert group_bytes(10, 64, Format(bits=4, block_size=32, symmetric=False)) == 320 + 80 + 10
    assert group_bytes(10, 64, Format(bits=2, block_size=64, symmetric=False)) == 160 + 40 + 10
    assert group_bytes(10, 64, Format(bits=8, block_size=16)) == 640 + 160
    assert group_bytes(10, 64, Format(bits=16)) == 1280
    assert group_bytes(10, 64, Format(bits=32)) == 2560


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_equals_the_packed_arrays(bits: int, symmetric: bool) -> None:
    format_ = Format.model_validate({"bits": bits, "block_size": 16, "symmetric": symmetric})
    weights = np.random.default_rng(0).standard_normal((7, 80), dtype=np.float32)
    matrix = round_to_nearest(weights, format_)
    stored = pack_rows(matrix.codes, bits).nbytes + matrix.scales.nbytes
    if matrix.zero_points is not None:
        stored += pack_rows(matrix.zero_points, bits).nbytes
    assert group_bytes(7, 80, format_) == stored


def test_what_a_process_holds_on_paper() -> None:
    """4 x 64 weights: 128 bytes of 4-bit codes and 2 scales a row, thrice; looked up, the codes again."""
    assert held_bytes(4, 64, Format(bits=4, block_size=32), looked_up=False) == 128 + 3 * 4 * 2 * 4
    assert held_bytes(4, 64, Format(bits=4, block_size=32), looked_up=True) == 2 * 128 + 3 * 4 * 2 * 4
    asymmetric = Format(bits=4, block_size=32, symmetric=False)
    assert held_bytes(4, 64, asymmetric, looked_up=False) == 128 + 3 * 4 * 2 * 4 + 4 * 1
    for bits in (16, 32):
        assert held_bytes(4, 64, Format(bits=bits), looked_up=False) == 1024
        assert held_bytes(4, 64, Format(bits=bits), looked_up=True) == 2048


def test_a_table_that_is_only_looked_up_is_held_as_it_is_stored() -> None:
    """The embedding beside an untied head: no kernel packs it."""
    for format_ in (Format(bits=4, block_size=32), Format(bits=16), Format(bits=32)):
        stored = group_bytes(4, 64, format_)
        assert held_bytes(4, 64, format_, looked_up=True, multiplied=False) == stored


def test_a_last_block_is_stored_whole() -> None:
    """172 weights are 3 blocks of 64: 96 bytes of 4-bit codes and 3 scales; 3 zero points in 2 bytes."""
    assert group_bytes(4, 172, Format(bits=4, block_size=64)) == 4 * (96 + 3 * 4)
    assert group_bytes(4, 172, Format(bits=4, block_size=64, symmetric=False)) == 4 * (96 + 3 * 4 + 2)
    assert held_bytes(4, 172, Format(bits=4, block_size=64), looked_up=True) == 4 * (2 * 96 + 3 * 3 * 4)
    assert group_bytes(4, 172, Format(bits=16)) == 4 * 172 * 2


def test_cache_and_activations() -> None:
    # 3 tokens, each an inner layer of 8 twice and a width of 2 six times
    assert prefill_bytes(2, 8, 3) == 3 * (16 + 12) * 4
    # a gate and what passes through it: 8 together, three times, and a width of 2 nine times
    assert prefill_bytes(2, 8, 3, gated=True) == 3 * (24 + 18) * 4
    assert kv_cache_bytes(12, 768, 1) == 2 * 12 * 768 * 4
