"""The importance table: measured once per student, method and format, and shared by all budgets.

Every format is a stage output of its own, so that targets with some formats in common share those, and a run
that was killed goes on with the next format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgeicl.models.anatomy import WeightGroup
from edgeicl.progress import track
from edgeicl.quantize.decoder import CalibratedDecoder
from edgeicl.quantize.jaccard import jaccard_losses, layer_similarities
from edgeicl.quantize.plan_file import fits
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.solver import SolverName, solve
from edgeicl.quantize.stored_weights import Stored
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.specs.importance import FormatLosses, ImportanceTable
from edgeicl.specs.quant_plan import Format
from edgeicl.specs.recipe import Quantize
from edgeicl.store import Store, digest_of

UNITS = {
    "sensitivity": "KL(fp32 || quantized) in nats, mean over read positions of the calibration sequences",
    "jaccard": "(1 - Jaccard similarity of the layer) * relative squared error of the weights",
}


@dataclass
class Student:
    """The student and its calibration sequences; weights and states are made when first needed.

    `prefix` stands before every sequence, as in `CalibratedDecoder`; `prefix_digest` is of its file.
    """

    load: Callable[[], StudentWeights]
    groups: Sequence[WeightGroup]
    digest: str
    sequences: Sequence[Sequence[int]]
    top_k: int
    solver: SolverName
    prefix: NDArray[Any] | None = None
    prefix_digest: str | None = None

    @cached_property
    def weights(self) -> StudentWeights:
        """The weights, read once."""
        return self.load()

    @cached_property
    def decoder(self) -> CalibratedDecoder:
        """The model at the calibration sequences."""
        return CalibratedDecoder(self.weights, self.sequences, self.prefix)

    @cached_property
    def sensitivity(self) -> Sensitivity:
        """The reference predictions and the states before each layer."""
        return Sensitivity(self.decoder)

    @cached_property
    def similarities(self) -> tuple[float, ...]:
        """Jaccard similarity of each decoder layer."""
        return layer_similarities(self.decoder, top_k=self.top_k)

    def stored(self, plan: Mapping[str, Format]) -> dict[str, Stored]:
        """Every group as the solver stores it in its format of the plan."""
        return solve(self.solver, self.weights, plan, self.decoder)


def importance_table(
    student: Student, formats: Sequence[Format], *, settings: Quantize, store: Store
) -> tuple[ImportanceTable, tuple[str, ...]]:
    """Losses of every group in every format that fits it, and the digests of the stage outputs they are in."""
    parts: list[ImportanceTable] = []
    digests: list[str] = []
    for format_ in formats:
        inputs = {
            "student": student.digest,
            "method": settings.importance,
            "top_k": student.top_k if settings.importance == "jaccard" else None,
            "format": format_.model_dump(mode="json"),
            "calibration": digest_of([list(sequence) for sequence in student.sequences]),
            "prefix": student.prefix_digest,
            "solver": student.solver if settings.importance == "sensitivity" else None,
        }

        def build(folder: Path, format_: Format = format_) -> None:
            if store.workers.is_writer:
                table = _measured(student, format_, settings)
                (folder / "importance.json").write_text(table.model_dump_json(indent=1) + "\n")

        output = store.run("importance", inputs, build)
        parts.append(ImportanceTable.model_validate_json((output.path / "importance.json").read_bytes()))
        digests.append(output.digest)
    merged = parts[0].model_copy(update={"formats": tuple(entry for part in parts for entry in part.formats)})
    return merged, tuple(digests)


def _measured(student: Student, format_: Format, settings: Quantize) -> ImportanceTable:
    groups = [group for group in student.groups if fits(group, format_)]
    method = settings.importance
    matrices = student.weights.matrices
    with track(f"{method} of {format_}", len(groups)) as advance:
        if method == "sensitivity":
            losses = student.sensitivity.losses(
                groups, matrices, format_, solver=student.solver, advance=advance
            )
        else:
            losses = jaccard_losses(groups, matrices, format_, student.similarities, advance=advance)
    return ImportanceTable(
        method=method,
        unit=UNITS[method],
        calibration_sequences=len(student.sequences),
        calibration_tokens=sum(len(sequence) for sequence in student.sequences),
        jaccard=student.similarities if method == "jaccard" else None,
        formats=(FormatLosses(format=format_, losses=losses),),
    )
