"""The finished artifact beside the target's budget."""

from __future__ import annotations

from edgeicl.errors import BudgetError
from edgeicl.specs.byte_size import format_byte_size
from edgeicl.specs.target import Target


def require_budget(total_bytes: int, *, predicted_bytes: int, target: Target) -> None:
    """BudgetError if the files of an artifact take more than the target allows."""
    budget = target.budget.artifact_bytes
    if budget is not None and total_bytes > budget:
        raise BudgetError(
            f"the artifact takes {total_bytes:,} bytes ({format_byte_size(total_bytes)}), the budget of target "
            f"{target.name} is {budget:,}; the plan predicted {predicted_bytes:,}",
            smallest_bytes=total_bytes,
            next_step="allow the target more bytes, or hand in a plan with fewer bits",
        )
