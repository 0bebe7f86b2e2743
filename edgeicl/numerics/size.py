"""Bytes of a weight group, exactly as they lie in `model.onnx.data`. Planner and emitter share this model."""

from __future__ import annotations

from edgeicl.errors import DataError
from edgeicl.specs.quant_plan import Format

SCALE_BYTES = 4


def codes_bytes(rows: int, columns: int, bits: int) -> int:
    """Bytes of `rows` x `columns` weights of `bits` each, packed without gaps."""
    return rows * columns * bits // 8


def packed_row_bytes(count: int, bits: int) -> int:
    """Bytes of one row of `count` packed zero points; each row starts on a byte of its own."""
    return -(-count * bits // 8)


def group_bytes(rows: int, columns: int, format_: Format) -> int:
    """Bytes of a group's weights in `format_`: codes, fp32 scales, and zero points where asymmetric.

    Biases are not part of it: they are stored in fp32 whatever the format, so they belong to the bytes that
    no plan can change.

    Raises:
        DataError: `columns` is no multiple of the format's block size.
    """
    if not format_.quantized:
        return codes_bytes(rows, columns, format_.bits)
    assert format_.block_size is not None
    if columns % format_.block_size:
        raise DataError(
            f"rows of {columns} weights don't divide into the blocks of {format_}",
            next_step=f"choose a block size that divides {columns}",
        )
    blocks = columns // format_.block_size
    size = codes_bytes(rows, columns, format_.bits) + rows * blocks * SCALE_BYTES
    if not format_.symmetric:
        size += rows * packed_row_bytes(blocks, format_.bits)
    return size


def kv_cache_bytes(layers: int, hidden: int, context_tokens: int) -> int:
    """Bytes of the fp32 keys and values of one sequence of `context_tokens`."""
    return 2 * layers * hidden * 4 * context_tokens


def fixed_tensor_bytes(layers: int, hidden: int, ffn: int, positions: int) -> int:
    """Bytes of OPT's tensors that no plan can change: positions, norms and biases, all fp32.

    `positions` is `max_position_embeddings`: the two unused rows that OPT's table starts with aren't stored.
    """
    norms = 2 * hidden * (2 * layers + 1)
    biases = layers * (3 * hidden + hidden + ffn + hidden)
    return 4 * (positions * hidden + norms + biases)
