"""The manifest of an artifact, `edgeicl.json`: what it holds, where it came from, what was shown of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from edgeicl.specs.measurement import BenchResult, Evaluation
from edgeicl.specs.pattern import Pattern
from edgeicl.specs.quant_plan import QuantPlan
from edgeicl.specs.recovery import Recovery
from edgeicl.specs.spec import Spec

MANIFEST = "edgeicl.json"
MODEL_FILE = "model.onnx"
WEIGHTS_FILE = "model.onnx.data"
TASK_FILE = "task.json"
PREFIX_FILE = "prefix.safetensors"
GENAI_FILE = "genai_config.json"
DECODER_FILE = "decoder.json"
"""In the place of `GENAI_FILE`, with the same keys, where the graph has logits of labels alone."""
COMPRESSOR = "compressor"
"""Folder of what makes vectors of demonstrations, in the hub's layout; kept beside what is deployed."""


LOGIT_TOKENS = "Token of each column of the logits; null: every token of the vocabulary, by its id."


Engine = Literal["fused", "growing"]
ENGINE = (
    "What runs the graph: keys and values lie in one buffer, as in edgeicl's lowerings (fused), or are copied "
    "with every step, as in Optimum's exports (growing)."
)

OPTIMUM_AGREES = (
    "Whether Optimum's ORTModelForCausalLM made the same greedy tokens of the folder; null: it wasn't there, "
    "or nothing is generated."
)


class Deviation(Spec):
    """Something asked for and not done. An error under `--strict`."""

    what: str
    where: str
    asked: str
    got: str
    why: str


class LedgerEntry(Spec):
    """Bytes of one tensor, or of one part of the file that is no tensor."""

    name: str
    file: str
    bytes: int
    group: str | None = None


class ParityCheck(Spec):
    """Largest difference between the artifact and the reference that holds the same weights."""

    name: str
    max_abs_difference: float
    tolerance: float
    reference_scale: float = Field(description="Largest absolute reference logit.")


class ArtifactAccuracy(Spec):
    """The artifact beside the student it was made from, on the in-domain data."""

    data: Literal["in_domain", "out_of_domain"]
    student: float
    artifact: float
    examples: int
    limit_points: float | None = None


class PrefixUse(Spec):
    """What stands before every query: key/value rows in `prefix.safetensors`, put into the cache as they are.

    A query follows without the tokens that the tokenizer puts first, at the position after the rows. Several
    sets answer by majority vote; a tie goes to the label with the highest mean probability.
    """

    kind: Literal["tokens", "vectors"] = Field(
        description="tokens: rows of demonstrations, whose token ids are in the file too; vectors: of vectors "
        "that stand for demonstrations."
    )
    tokens: tuple[int, ...] = Field(min_length=1, description="Positions that each set takes.")
    longest_query_tokens: int = Field(
        ge=1, description="Of the data that the artifact was checked on, with the label."
    )


class EmitChecks(Spec):
    """`checks.json`: what the emit stage counted and checked before its folder was published."""

    version: Literal[1] = 1
    ledger: tuple[LedgerEntry, ...] = Field(description="Sums up to the bytes of all files but this one.")
    parity: tuple[ParityCheck, ...]
    accuracy: tuple[ArtifactAccuracy, ...] = ()
    prefix: PrefixUse | None = None
    logit_tokens: tuple[int, ...] | None = Field(None, description=LOGIT_TOKENS)
    engine: Engine = Field("fused", description=ENGINE)
    optimum_agrees: bool | None = Field(None, description=OPTIMUM_AGREES)
    deviations: tuple[Deviation, ...] = ()


class Manifest(Spec):
    """`edgeicl.json`."""

    version: Literal[1] = 1
    name: str
    target: str
    seed: int
    recipe_digest: str
    target_digest: str
    versions: dict[str, str]
    files: dict[str, str] = Field(
        description="File name -> SHA-256; every file but this one. An app needs those of the ledger."
    )
    plan: QuantPlan
    solver: Literal["rtn", "hqq", "gptq"] = Field("rtn", description="How weights became codes.")
    recovery: Recovery | None = Field(None, description="Training after rounding; null: not asked for.")
    ledger: tuple[LedgerEntry, ...]
    parity: tuple[ParityCheck, ...]
    accuracy: tuple[ArtifactAccuracy, ...] = ()
    prefix: PrefixUse | None = Field(None, description="What stands before every query, as in task.json.")
    logit_tokens: tuple[int, ...] | None = Field(None, description=LOGIT_TOKENS)
    engine: Engine = Field("fused", description=ENGINE)
    optimum_agrees: bool | None = Field(None, description=OPTIMUM_AGREES)
    evaluation: Evaluation | None = None
    bench: BenchResult | None = None
    deviations: tuple[Deviation, ...] = ()

    @property
    def rounding(self) -> str:
        """How weights became codes, and what training them as codes gave, in words."""
        told = {"rtn": "rounded to nearest", "hqq": "half-quadratic quantization", "gptq": "GPTQ"}[self.solver]
        if self.recovery is None or not self.recovery.best_step:
            return told
        before, after = self.recovery.at(0), self.recovery.at(self.recovery.best_step)
        return (
            f"{told}, then trained for {after.step} steps: KL to the unquantized student from "
            f"{before.kl_to_student:.4g} to {after.kl_to_student:.4g} nats on held-out sequences"
        )


class TaskFile(Spec):
    """`task.json`: all that an app needs to format a query and read its answer."""

    version: Literal[1] = 1
    pattern: Pattern
    verbalizers: dict[str, str]
    verbalizer_tokens: dict[str, tuple[int, ...]]
    separator: str
    score: Literal["sum", "mean"] = Field("sum", description="Of the log-probabilities of a label's tokens.")
    prefix: PrefixUse | None = Field(None, description="What stands before every query; null: nothing.")
    logit_tokens: tuple[int, ...] | None = Field(None, description=LOGIT_TOKENS)

    def label_columns(self) -> list[tuple[int, ...]]:
        """For each label, in the order of `verbalizers`, where in the logits its tokens are."""
        answers = [self.verbalizer_tokens[label] for label in self.verbalizers]
        if self.logit_tokens is None:
            return answers
        return [tuple(map(self.logit_tokens.index, answer)) for answer in answers]
