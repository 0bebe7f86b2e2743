"""What the recipe layer hands to the compile layer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgeicl.specs.manifest import Deviation
from edgeicl.specs.measurement import Evaluation
from edgeicl.store import StageOutput
from edgeicl.tasks.label_targets import LabelTargets


@dataclass(frozen=True)
class DistillResult:
    """The student to compile (a folder in the hub's layout), and all that was found out on the way.

    `digest` is of its weights as they are, not of what they were made from: two trainings from the same inputs
    on other processors differ in their last bits. `source` is the folder of the model it was before. `prefix`
    is a file of `specs.prefix`, for a student that something stands before, and `compressor` the folder of the
    hypernetwork that made its vectors. `targets` are the answers that the student was taught; None where its
    method has none that hold for the student as it is deployed, or nobody trains it further.
    """

    student: Path
    digest: str
    evaluation: Evaluation
    outputs: tuple[tuple[str, StageOutput], ...]
    source: Path
    deviations: tuple[Deviation, ...] = ()
    prefix: Path | None = None
    compressor: Path | None = None
    targets: LabelTargets | None = None
