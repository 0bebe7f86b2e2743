"""From a target's calibration to the time until the first token: how long a prompt is read.

    time = fixed + sum over groups of weights * tokens * cost of their format
         + activations of the layers * cost of a number + products between tokens * cost of one
         + keys and values that are rounded after attention * cost of one

In the last layer all but queries, keys and values are computed for the last token alone, as is the head: those
weights cost what they cost a decoded token. Reading a prompt is bound by arithmetic, so bytes don't enter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from edgeicl.errors import BudgetError
from edgeicl.models.anatomy import Anatomy, WeightGroup
from edgeicl.models.prompt_time import product_nanoseconds, rest_of_prompt_ms
from edgeicl.quantize.allocation import Limit, SizeTable, plan_bytes
from edgeicl.specs.quant_plan import CacheBits, Format, PromptAttention
from edgeicl.specs.target import Calibration

_LIMIT_STEPS = 100_000  # in which a limit is divided: the solver of the allocation needs small numbers
ROOM_FOR_STEPS = 1.003
"""Of a time that is told to be enough: as a limit, each group's is rounded up to whole steps of it."""


@dataclass(frozen=True)
class FirstTokenTime:
    """Predicted milliseconds of reading a prompt, and how many it may take.

    Args:
        nanoseconds: Group -> format -> time of its product.
        rest_ms: All else.
        limit_ms: None where the target sets none.
        prompt_format: Of the layers' second copy, if there is one.
        copy_advised: Whether such a copy is possible, and the target doesn't offer it.
    """

    target: str
    prompt_tokens: int
    nanoseconds: SizeTable
    rest_ms: float
    limit_ms: float | None
    prompt_format: Format | None = None
    copy_advised: bool = False

    def ms(self, plan: Mapping[str, Format]) -> float:
        """Of the prompt when the groups are stored by `plan`."""
        return self.ms_of(plan_bytes(plan, self.nanoseconds))

    def ms_of(self, nanoseconds: int) -> float:
        """The same for groups whose products take so long."""
        return self.rest_ms + nanoseconds * 1e-6

    @property
    def limit(self) -> Limit:
        """What the groups may take, in steps of the limit; may be negative."""
        assert self.limit_ms is not None
        step = max(1, int(self.limit_ms * 1e6 / _LIMIT_STEPS))
        steps = {
            group: {f: ceil(taken / step) for f, taken in each.items()}
            for group, each in self.nanoseconds.items()
        }
        return Limit(steps, int((self.limit_ms - self.rest_ms) * 1e6 // step))

    def require(self, nanoseconds: int, *, what: str, instead: str) -> None:
        """BudgetError if groups whose products take so long break the limit; names the time needed.

        `instead` is what can be done beside raising the limit.
        """
        needed = self.ms_of(nanoseconds)
        copy = ", set its prompt_format" if self.copy_advised else ""
        if self.limit_ms is not None and needed > self.limit_ms:
            raise BudgetError(
                f"target {self.target}: budget.first_token_ms is {self.limit_ms:g}, but {what} takes "
                f"{needed:.4g} ms for a prompt of {self.prompt_tokens} tokens, predicted: products "
                f"{nanoseconds * 1e-6:.4g} ms, all else {self.rest_ms:.4g} ms",
                smallest_ms=needed,
                next_step=f"set budget.first_token_ms of target {self.target} to at least "
                f"{needed * ROOM_FOR_STEPS:.4g}, lower its prompt_tokens{copy}, {instead}",
            )


def first_token_time(
    target: str,
    anatomy: Anatomy,
    offered: Mapping[WeightGroup, Sequence[Format]],
    calibration: Calibration,
    *,
    prompt_tokens: int,
    limit_ms: float | None,
    multiplied: Callable[[WeightGroup], bool],
    prompt_format: Format | None = None,
    copy_advised: bool = False,
    attention: PromptAttention = "tiled",
    cache_bits: CacheBits = 32,
) -> FirstTokenTime | None:
    """The time of a prompt; None where the calibration lacks a cost, or layers aren't known.

    Args:
        offered: The formats that each group may have.
        multiplied: Whether a group is multiplied with; tokens are looked up in the others, in no time.
        prompt_format, copy_advised: As in `FirstTokenTime`.
        attention: How it goes through the prompt's scores.
        cache_bits: Of a key or a value.
    """

    def read(group: WeightGroup, format_: Format) -> Format:
        return format_ if prompt_format is None or group.layer is None else prompt_format

    if anatomy.exported:
        return None
    table: dict[str, dict[Format, int]] = {}
    for group, formats in offered.items():
        if not multiplied(group):
            table[group.name] = dict.fromkeys(formats, 0)
            continue
        costs = {format_: calibration.cost(read(group, format_)) for format_ in formats}
        known = {
            format_: product_nanoseconds(group, cost, anatomy, prompt_tokens)
            for format_, cost in costs.items()
            if cost is not None
        }
        if len(known) < len(costs):
            return None
        table[group.name] = known
    rest_ms = rest_of_prompt_ms(
        anatomy, calibration, prompt_tokens, attention, cache_bits=cache_bits, copy=prompt_format
    )
    if rest_ms is None:
        return None
    return FirstTokenTime(target, prompt_tokens, table, rest_ms, limit_ms, prompt_format, copy_advised)
