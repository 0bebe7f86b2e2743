"""What a teacher answers to a task's queries: handed from the recipe layer to whoever trains on it later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class LabelTargets:
    """The teacher's answers, N of them.

    Args:
        rows: Token ids of each prompt as the student reads it, without demonstrations.
        log_probabilities: [N, L] of the labels, or [N, V] of the token after the prompt.
        over: Which of the two.
        digest: Of all that decides them.
    """

    rows: Sequence[Sequence[int]]
    log_probabilities: NDArray[Any]
    over: Literal["verbalizers", "vocabulary"]
    digest: str
