"""From a target's calibration to the time that a decoded token takes, as a third limit on the weight groups.

    time = fixed + groups as read / bandwidth of their bits + (other tensors + cache of the context) / bandwidth

Decoding reads every weight once a token and is bound by that (roofline: Williams et al. 2009). So that the
limit is one of bytes as the others are, what is read at another speed counts as the bytes that the calibrated
bandwidth would read in the same time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgeicl.errors import BudgetError
from edgeicl.quantize.allocation import Limit, SizeTable, plan_bytes
from edgeicl.specs.quant_plan import Format


@dataclass(frozen=True)
class DecodeTime:
    """Predicted milliseconds of a decoded token at the end of the context, and how many it may take.

    Args:
        reads: Group -> format -> bytes at the calibrated bandwidth.
        rest_bytes: All else that one token reads.
        limit_ms: None where the target sets none.
    """

    target: str
    reads: SizeTable
    rest_bytes: int
    bandwidth_bytes_per_second: float
    fixed_ms: float
    limit_ms: float | None

    def ms(self, plan: Mapping[str, Format]) -> float:
        """Of a token when the groups are stored by `plan`."""
        return self.ms_of_bytes(plan_bytes(plan, self.reads))

    @property
    def limit(self) -> Limit:
        """What the groups may take, in bytes at the calibrated bandwidth; may be negative."""
        assert self.limit_ms is not None
        spare = int((self.limit_ms - self.fixed_ms) * 1e-3 * self.bandwidth_bytes_per_second)
        return Limit(self.reads, spare - self.rest_bytes)

    def require(
        self,
        reads_bytes: int,
        *,
        what: str,
        instead: str,
    ) -> None:
        """BudgetError if groups that take `reads_bytes` of bandwidth break the limit; names the time needed.

        `instead` is what can be done beside raising the limit.
        """
        if self.limit_ms is not None and reads_bytes > self.limit.limit_bytes:
            needed, speed = self.ms_of_bytes(reads_bytes), self.bandwidth_bytes_per_second / 1e9
            raise BudgetError(
                f"target {self.target}: budget.decode_ms is {self.limit_ms:g}, but {what} takes {needed:.4g} "
                f"ms a token, predicted: fixed {self.fixed_ms:g} ms, weight groups {reads_bytes}, other "
                f"tensors and cache {self.rest_bytes} bytes at {speed:.3g} GB/s",
                smallest_ms=needed,
                next_step=f"set budget.decode_ms of target {self.target} to at least {needed * 1.001:.4g}, "
                f"lower its context_tokens, {instead}",
            )

    def ms_of_bytes(self, reads_bytes: int) -> float:
        """The same for groups that take `reads_bytes` at the calibrated bandwidth."""
        return self.fixed_ms + 1e3 * (reads_bytes + self.rest_bytes) / self.bandwidth_bytes_per_second
