"""What a recipe's teacher targets cost on this computer."""

from __future__ import annotations

from pydantic import Field

from edgeicl.specs.spec import Spec


class Compared(Spec):
    """Two ways to the targets of the same queries, run by turns."""

    queries: int
    plain_queries: int = Field(description="Of them, those scored the plain way too; spread evenly.")
    context_tokens: int = Field(description="Tokens that stand before every query.")
    query_tokens: float = Field(description="Mean tokens of a query.")
    targets_s: float = Field(description="For all queries, with the context encoded once.")
    context_s: float = Field(description="Of which the context takes about this; measured apart.")
    plain_s: float = Field(description="A query, mean.")
    ratio: float = Field(description="Plain time of as many queries over `targets_s`.")
    cpu_ratio: float = Field(description="The same in time of the processor, which others stretch less.")
    largest_difference: float = Field(description="Between log-probabilities of the two ways, in nats.")
    spread: float = Field(description="Of the first label's log-probability: standard deviation, in nats.")
    plain_log_probabilities: tuple[tuple[float, ...], ...]


class ScoringMemory(Spec):
    """Memory of a process that scores so many queries, above what it held before the model was loaded."""

    queries: int
    peak_rss_bytes: int


class TeacherSpeed(Spec):
    """What the targets of a recipe's teacher cost here."""

    teacher: str
    load_in: str
    threads: int
    compared: Compared
    memory: tuple[ScoringMemory, ...]
    estimated_bytes: int = Field(description="What a build expects before it loads the teacher.")
