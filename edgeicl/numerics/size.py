"""Bytes of a weight group: exactly as they lie in `model.onnx.data`, and as the running process holds them.

Planner and emitter share the first; the second is a model of onnxruntime, measured (see `held_bytes`).
"""

from __future__ import annotations

from collections.abc import Sequence

from edgeicl.specs.quant_plan import Format

SCALE_BYTES = 4
# Of one tensor in the header of a safetensors file: name, type, shape and place. Found: 97 and less.
_TENSOR_NAME_BYTES = 128


def codes_bytes(rows: int, columns: int, bits: int) -> int:
    """Bytes of `rows` x `columns` weights of `bits` each, packed without gaps."""
    return rows * columns * bits // 8


def blocks_of(columns: int, block_size: int) -> int:
    """Blocks of a row, the last of which may be filled up."""
    return -(-columns // block_size)


def packed_row_bytes(count: int, bits: int) -> int:
    """Bytes of one row of `count` packed zero points; each row starts on a byte of its own."""
    return -(-count * bits // 8)


def group_bytes(rows: int, columns: int, format_: Format, *, scale_bytes: int = SCALE_BYTES) -> int:
    """Bytes of a group's weights in `format_`: codes, scales, and zero points where asymmetric.

    Biases are not part of it: they are stored in the activations' type whatever the format, so they belong to
    the bytes that no plan can change. Scales are of that type too.

    A row's last block is stored whole, also where fewer weights are left for it.
    """
    if format_.block_size is None:
        return codes_bytes(rows, columns, format_.bits)
    block = format_.block_of(columns)
    blocks = blocks_of(columns, block)
    size = codes_bytes(rows, blocks * block, format_.bits) + rows * blocks * scale_bytes
    if not format_.symmetric:
        size += rows * packed_row_bytes(blocks, format_.bits)
    return size


def held_bytes(
    rows: int, columns: int, format_: Format, *, looked_up: bool = False, multiplied: bool = True
) -> int:
    """Bytes of a group in the memory of a process that runs it with onnxruntime on a CPU, at its peak.

    The kernels of a quantized group read codes that were packed anew, with the scales and a sum for each block;
    the scales stay beside them as they were. Floating-point weights are held in fp32 whatever they are stored
    in. Of a table that tokens are `looked_up` in too (the tied embedding) the codes, or the weights in fp32,
    are there a second time; of one that is not `multiplied` with (the embedding beside a head of its own, or
    beside labels' rows) nothing is packed, and it is held as it is stored.
    Measured with onnxruntime 1.31 on x86-64: docs/results/resident-memory.md.
    """
    if not multiplied:
        return group_bytes(rows, columns, format_)
    weights = rows * columns
    if format_.block_size is None:
        return 4 * weights * (2 if looked_up else 1)
    if format_.by_row:
        return group_bytes(rows, columns, format_)  # packed in the place of the codes, which are let go
    block = format_.block_of(columns)
    blocks = blocks_of(columns, block)
    codes = codes_bytes(rows, blocks * block, format_.bits)
    packed = codes + 3 * rows * blocks * SCALE_BYTES
    if not format_.symmetric:
        packed += rows * packed_row_bytes(blocks, format_.bits)
    return packed + (codes if looked_up else 0)


def held_bytes_on_gpu(
    rows: int, columns: int, format_: Format, *, scale_bytes: int = SCALE_BYTES, looked_up: bool = False
) -> int:
    """Bytes of a group in a GPU's memory: as stored, and twice where tokens are `looked_up` in it too.

    Lookup and product name the same bytes of the file, but each is handed a tensor of its own. Not measured.
    """
    return group_bytes(rows, columns, format_, scale_bytes=scale_bytes) * (2 if looked_up else 1)


def kv_cache_bytes(layers: int, kv_width: int, context_tokens: int, *, bits: int = 32) -> int:
    """Bytes of the keys and values of one sequence of `context_tokens`.

    `kv_width`: numbers of a layer's keys for one token, heads times head size.
    """
    return 2 * layers * kv_width * bits // 8 * context_tokens


def cache_scale_bytes(layers: int, kv_width: int, *, bits: int) -> int:
    """Bytes of the fp32 scales of a cache of integers, one for each channel; none for floating point."""
    return 2 * layers * kv_width * SCALE_BYTES if bits == 8 else 0


def rounded_cache_bytes(kv_width: int, tokens: int) -> int:
    """Bytes of a layer's keys and values of a prompt while they become integers after attention.

    In fp32 as they are and in steps of the cache, beside each other. Measured: docs/results/resident-memory.md.
    """
    return 2 * 2 * 4 * kv_width * tokens


def prefix_file_bytes(layers: int, kv_width: int, set_tokens: Sequence[int], *, bits: int, ids: bool) -> int:
    """Bytes of `prefix.safetensors`, at most: keys, values and token `ids` (if any) of every set, and names."""
    numbers = sum(2 * layers * kv_width * bits // 8 * tokens + ids * 8 * tokens for tokens in set_tokens)
    return numbers + len(set_tokens) * (2 * layers + ids) * _TENSOR_NAME_BYTES


def attention_score_bytes(heads: int, tokens: int) -> int:
    """Bytes of the scores between all tokens of a prompt in one layer, in fp32."""
    return 4 * heads * tokens**2


def prefill_bytes(width: int, widest: int, prompt_tokens: int, *, gated: bool = False) -> int:
    """Bytes of activations while a prompt is read, at their peak: the widest product twice, six widths.

    `width`: of the residual stream, or of all heads' queries where that is more. A `gated` MLP, whose widest
    product is cut in two, takes that three times and nine widths.
    Layers follow each other, so their number doesn't matter. Measured: docs/results/resident-memory.md.
    """
    numbers = 3 * widest + 9 * width if gated else 2 * widest + 6 * width
    return numbers * 4 * prompt_tokens
