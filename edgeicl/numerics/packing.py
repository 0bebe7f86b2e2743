"""Packing of 2, 4 and 8-bit codes as ONNX Runtime's MatMulNBits and GatherBlockQuantized read them.

Both operators pack along a row, the first code in the lowest bits of a byte, so one copy of the bytes serves
both: MatMulNBits sees it as `[N, blocks, bytes of a block]`, GatherBlockQuantized as `[N, bytes of a row]`.
Zero points are packed the same way, each row padded to a whole byte. An absent zero point means
`2**(bits - 1)` to both operators when the data is uint8.

Notation: N rows (output features or tokens), K columns (input features).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgeicl.errors import DataError

PACKED_BITS = (2, 4, 8)
Bytes = npt.NDArray[np.uint8]


def pack_rows(codes: Bytes, bits: int) -> Bytes:
    """`codes` [N, K] in 0..2**bits-1 -> [N, ceil(K * bits / 8)], low bits first, rows padded with zero bits.

    Raises:
        DataError: other bits than 2, 4 or 8, a code that doesn't fit, or codes that aren't a uint8 matrix.
    """
    per_byte = _codes_per_byte(bits)
    if codes.ndim != 2 or codes.dtype != np.uint8:
        raise DataError(f"codes to pack are {codes.dtype} {list(codes.shape)}; expected a uint8 matrix [N, K]")
    if bits < 8 and codes.size and int(codes.max()) >> bits:
        raise DataError(f"code {int(codes.max())} doesn't fit {bits} bits; expected 0..{2**bits - 1}")
    if per_byte == 1:
        return np.ascontiguousarray(codes)
    if codes.shape[1] % per_byte:
        codes = np.pad(codes, ((0, 0), (0, per_byte - codes.shape[1] % per_byte)))
    packed = codes[:, 0::per_byte].copy()
    for place in range(1, per_byte):
        packed |= codes[:, place::per_byte] << np.uint8(place * bits)
    return packed


def matmul_shape(rows: int, columns: int, bits: int, block_size: int) -> tuple[int, int, int]:
    """Shape in which MatMulNBits reads the packed codes of whole blocks: [N, blocks, bytes of a block]."""
    return rows, -(-columns // block_size), block_size * bits // 8


def gather_shape(rows: int, columns: int, bits: int, block_size: int) -> tuple[int, int]:
    """Shape in which GatherBlockQuantized reads the same bytes: [N, bytes of a row's whole blocks]."""
    _, blocks, block_bytes = matmul_shape(rows, columns, bits, block_size)
    return rows, blocks * block_bytes


def _codes_per_byte(bits: int) -> int:
    if bits not in PACKED_BITS:
        raise DataError(f"no kernel packs {bits} bits; expected one of {PACKED_BITS}")
    return 8 // bits
