"""Bytes of a weight group that one decoded token reads, as a device's calibration counts them."""

from __future__ import annotations

from math import ceil

from edgeicl.numerics.size import SCALE_BYTES, group_bytes
from edgeicl.specs.quant_plan import Format
from edgeicl.specs.target import Calibration


def read_bytes(
    shape: tuple[int, int], format_: Format, calibration: Calibration, scale_bytes: int = SCALE_BYTES
) -> int:
    """Bytes of a group [N, K] that one token reads, as many as the calibrated bandwidth reads in that time.

    Where the format's cost was measured, that is all that counts. Else: `scale_bytes` are of one number beside
    the codes; a runtime on a CPU holds floating-point weights in fp32 whatever they are stored in; where
    activations have 16 bits, weights are read so. What is not read at the calibrated bandwidth is rounded up to
    whole kilobytes: the solver of the allocation needs a common divisor.
    """
    rows, columns = shape
    if (cost := calibration.cost(format_)) is not None:
        seconds = rows * columns * cost.decode_ps_per_weight * 1e-12
        return ceil(seconds * calibration.bandwidth_bytes_per_second / 1000) * 1000
    taken = scale_bytes * rows * columns
    if format_.quantized:
        taken = group_bytes(rows, columns, format_, scale_bytes=scale_bytes)
    bits = format_.bits if format_.quantized else 32
    speeds = {entry.bits: entry.bandwidth_bytes_per_second for entry in calibration.by_bits}
    if bits not in speeds:
        return taken
    return ceil(taken * calibration.bandwidth_bytes_per_second / speeds[bits] / 1000) * 1000
