"""What `edgeicl headline` finds: the artifact without demonstrations beside the teacher with them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeicl.specs.comparison import NotMeasured, Ratio
from edgeicl.specs.measurement import Fidelity, PairedTest
from edgeicl.specs.spec import Spec


class QueryRound(Spec):
    """One process: all queries, one after another."""

    load_ms: float = Field(description="Reading the weights.")
    demonstrations_ms: float = Field(description="Computing keys and values that queries share; 0 if none.")
    query_ms: float = Field(description="Median over queries of the time from token ids to the label's score.")
    baseline_rss_bytes: int = Field(description="Peak memory before the model is loaded: the libraries.")
    peak_rss_bytes: int
    query_samples_ms: tuple[float, ...]


class Accuracy(Spec):
    """Right answers on the queries of one data set."""

    data: Literal["in_domain", "out_of_domain"]
    accuracy: float
    balanced_accuracy: float = Field(description="Mean of the accuracies by label.")
    examples: int


class Answerer(Spec):
    """The artifact, or the teacher in one precision and one way to be asked."""

    name: str
    description: str
    file_bytes: int = Field(description="The artifact: graph and weights. The teacher: its weights as held.")
    query_tokens: int = Field(description="Of the median query, without what stands before it.")
    before_tokens: int = Field(description="What stands before a query: demonstrations, or a prefix.")
    cached: bool = Field(description="Whether keys and values of what stands before are there already.")
    bytes_per_query: int = Field(
        description="Energy proxy: weights once a pass, and keys and values of every position once a pass."
    )
    flops_per_query: int | None = Field(
        description="Energy proxy: matrix products and attention, counted; null: another exporter's graph."
    )
    accuracy: tuple[Accuracy, ...]
    rounds: tuple[QueryRound, ...] = Field(min_length=1)
    versions: dict[str, str] = Field(description="Of the libraries that ran it.")


class AgainstTeacher(Spec):
    """The artifact over one way to run the teacher; below 1 is less."""

    teacher: str
    query: Ratio = Field(description="Time of a query.")
    peak_rss: Ratio = Field(description="Peak resident memory of the process.")
    file_bytes: float
    bytes_per_query: float
    flops_per_query: float | None
    tests: tuple[PairedTest, ...] = Field(description="Artifact minus teacher on the same queries.")


class Headline(Spec):
    """Each round asks everyone the same queries, in a process of its own; every other round in reverse."""

    version: Literal[2] = 2
    fidelity: Fidelity
    machine: str
    processor: str
    logical_cores: int
    threads: int
    artifact_sha256: str
    teacher: str = Field(description="The model by its name in the recipe, or as given.")
    demonstrations: int
    demonstration_tokens: int
    demonstration_seed: int
    queries: int = Field(description="Of all data sets together, the same in every round.")
    artifact: Answerer
    teachers: tuple[Answerer, ...]
    not_measured: tuple[NotMeasured, ...]
    pairings: tuple[AgainstTeacher, ...]
    other_work: tuple[float, ...] = Field(
        (), description="Share of all cores' time that other processes had before each round, where known."
    )
    doubts: tuple[str, ...] = Field(
        (), description="What speaks against the times: rounds that disagree, other work. Empty: nothing."
    )
    notes: tuple[str, ...] = ()
