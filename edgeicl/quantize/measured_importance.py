"""The importance table: measured once per student, method and format, and shared by all budgets.

Every format is a stage output of its own, so that targets with some formats in common share those, and a run
that was killed goes on with the next format.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgeicl.models.anatomy import WeightGroup
from edgeicl.progress import track
from edgeicl.quantize.block_influence import block_influences
from edgeicl.quantize.block_losses import block_losses
from edgeicl.quantize.decoder import Cache, CalibratedDecoder
from edgeicl.quantize.derived_losses import (
    Changes,
    derived_table,
    formats_of_groups,
    measured_format,
    output_changes,
)
from edgeicl.quantize.jaccard import layer_similarities
from edgeicl.quantize.known_layer import fast_for_differences
from edgeicl.quantize.plan_loss import PlanLoss
from edgeicl.quantize.sensitivity import Sensitivity
from edgeicl.quantize.solver import SolverName, solved
from edgeicl.quantize.stored_weights import Stored
from edgeicl.quantize.student_weights import StudentWeights
from edgeicl.quantize.weight_outliers import outlier_importances
from edgeicl.quantize.whole_model import WholeModelDecoder, WholeModelWeights
from edgeicl.specs.importance import FormatLosses, ImportanceMethod, ImportanceTable, MeasuredFormats
from edgeicl.specs.quant_plan import Format
from edgeicl.specs.recipe import Lsaq
from edgeicl.store import Store, digest_of

UNITS = {
    "sensitivity": "KL(fp32 || quantized) in nats, mean over read positions of the calibration sequences",
    "jaccard": "(1 - Jaccard similarity of the block) * relative squared error of the weights",
    "cosine": "(1 - cosine of the block's input and output) * relative squared error of the weights",
    "zscore": "(least z-score density of all blocks / the block's) * relative squared error of the weights",
}


GroupsByFormat = Mapping[Format, Sequence[str]]
"""Names of the groups that may have each format."""


@dataclass
class Student:
    """The student and its calibration sequences; weights and states are made when first needed.

    `prefix` stands before every sequence, as in `CalibratedDecoder`; `prefix_digest` is of its file.
    `head_tokens` are those that the artifact will have logits of.
    """

    load: Callable[[], StudentWeights]
    groups: Sequence[WeightGroup]
    digest: str
    sequences: Sequence[Sequence[int]]
    importance: ImportanceMethod
    top_k: int
    lsaq: Lsaq
    solver: SolverName
    prefix: NDArray[Any] | None = None
    prefix_digest: str | None = None
    head_tokens: tuple[int, ...] | None = None
    measured_formats: MeasuredFormats = "all"

    @cached_property
    def weights(self) -> StudentWeights:
        """The weights, read once."""
        return self.load()

    @cached_property
    def decoder(self) -> CalibratedDecoder:
        """The model at the calibration sequences."""
        if isinstance(self.weights, WholeModelWeights):
            return WholeModelDecoder(self.weights, self.sequences)
        return CalibratedDecoder(self.weights, self.sequences, self.prefix, self.head_tokens)

    @cached_property
    def sensitivity(self) -> Sensitivity:
        """The reference predictions and the states before each layer."""
        return Sensitivity(self.decoder, moved_in=fast_for_differences())

    @cached_property
    def block_importances(self) -> tuple[float, ...]:
        """Importance of every decoder block, 0 to 1, by a method that rates blocks."""
        if self.importance == "cosine":
            return block_influences(self.decoder)
        if self.importance == "zscore":
            return outlier_importances(self.weights)
        return tuple(1.0 - similarity for similarity in self.block_similarities)

    @cached_property
    def block_similarities(self) -> tuple[float, ...]:
        """LSAQ's Jaccard similarity of every decoder block, 0 to 1."""
        decoder = self.decoder
        if self.head_tokens is not None:  # what a state would say is a token of all, not one of few labels
            decoder = CalibratedDecoder(self.weights, self.sequences, self.prefix)
        return layer_similarities(
            decoder,
            top_k=self.top_k,
            final_norm=self.lsaq.final_norm,
            sets_over=self.lsaq.sets_over,
            states=self.sensitivity.states,
        )

    def plan_loss(self, cache: Cache | None = None) -> PlanLoss:
        """Measures whole plans, with keys and values as `cache` keeps them; in fp32 unless given."""
        return PlanLoss(self.solver, self.weights, self.decoder, self.sensitivity, cache)

    def stored(self, plan: Mapping[str, Format]) -> Iterator[tuple[str, Stored]]:
        """Each group as the solver stores it in its format of the plan, one after the other."""
        with track("rounding weights", len(plan)) as advance:
            for group, matrix in solved(self.solver, self.weights, plan, self.decoder):
                yield group, matrix
                advance(1)


def importance_table(
    student: Student, groups_by_format: GroupsByFormat, *, store: Store
) -> tuple[ImportanceTable, tuple[str, ...]]:
    """Losses of every group in every format it may have, and the digests of the stage outputs they are in."""
    parts: list[ImportanceTable] = []
    digests: list[str] = []
    measured = measured_groups(student, groups_by_format)
    for format_, groups in measured.items():

        def build(folder: Path, format_: Format = format_, groups: Sequence[str] = groups) -> None:
            if store.workers.is_writer:
                table = _measured(student, format_, groups)
                (folder / "importance.json").write_text(table.model_dump_json(indent=1) + "\n")

        output = store.run("importance", _inputs(student, format_, groups), build)
        parts.append(ImportanceTable.model_validate_json((output.path / "importance.json").read_bytes()))
        digests.append(output.digest)
    merged = parts[0].model_copy(update={"formats": tuple(entry for part in parts for entry in part.formats)})
    if measured == groups_by_format:
        return merged, tuple(digests)
    changes, digest = _output_changes(student, groups_by_format, store=store)
    table = derived_table(
        merged,
        groups_by_format,
        changes,
        measure=lambda name, format_: _measured(student, format_, [name]).formats[0].losses[name],
    )
    return table, (*digests, digest)


def measured_groups(student: Student, groups_by_format: GroupsByFormat) -> GroupsByFormat:
    """The groups whose loss is measured in each format; of the others it is derived."""
    if student.importance != "sensitivity" or student.measured_formats == "all":
        return groups_by_format
    offered = formats_of_groups(groups_by_format)
    measured = {
        format_: [name for name in names if measured_format(format_, offered[name]) == format_]
        for format_, names in groups_by_format.items()
    }
    return {format_: names for format_, names in measured.items() if names}


def _output_changes(student: Student, groups_by_format: GroupsByFormat, *, store: Store) -> tuple[Changes, str]:
    """What every group's formats change, from the store, and the digest it is under."""
    offered = formats_of_groups(groups_by_format)

    def build(folder: Path) -> None:
        if store.workers.is_writer:
            with track("changes of outputs", sum(map(len, offered.values()))) as advance:
                found = output_changes(
                    student.weights, student.decoder, offered, solver=student.solver, advance=advance
                )
            rows = [[format_.model_dump(mode="json"), changes] for format_, changes in found.items()]
            (folder / "changes.json").write_text(json.dumps(rows, indent=1) + "\n")

    inputs = [_inputs(student, format_, names) for format_, names in groups_by_format.items()]
    output = store.run("output-changes", {"formats": inputs}, build)
    rows = json.loads((output.path / "changes.json").read_text())
    return {Format.model_validate(format_): changes for format_, changes in rows}, output.digest


def unmeasured(student: Student, groups_by_format: GroupsByFormat, *, store: Store) -> int:
    """How many losses `importance_table` has to measure, not finding them in the store."""
    return sum(
        len(names)
        for format_, names in measured_groups(student, groups_by_format).items()
        if not store.holds("importance", _inputs(student, format_, names))
    )


def _inputs(student: Student, format_: Format, groups: Sequence[str]) -> dict[str, Any]:
    """For the store: what the losses in a format depend on."""
    return {
        "student": student.digest,
        "method": student.importance,
        "lsaq": [student.top_k, student.lsaq.model_dump()] if student.importance == "jaccard" else None,
        "format": format_.model_dump(mode="json"),
        "groups": list(groups),
        "calibration": digest_of([list(sequence) for sequence in student.sequences]),
        "prefix": student.prefix_digest,
        "solver": student.solver if student.importance == "sensitivity" else None,
        "moved_in": str(fast_for_differences()) if student.importance == "sensitivity" else None,
        "head_tokens": student.head_tokens,
    }


def _measured(student: Student, format_: Format, names: Sequence[str]) -> ImportanceTable:
    groups = [group for group in student.groups if group.name in names]
    method = student.importance
    if method == "sensitivity":
        with track(f"{method} of {format_}, layers", student.sensitivity.passes(groups)) as advance:
            losses = student.sensitivity.losses(
                groups, student.weights, format_, solver=student.solver, advance=advance
            )
    else:
        with track(f"{method} of {format_}", len(groups)) as advance:
            losses = block_losses(
                groups, student.weights.matrices, format_, student.block_importances, advance=advance
            )
    return ImportanceTable(
        method=method,
        unit=UNITS[method],
        calibration_sequences=len(student.sequences),
        calibration_tokens=sum(len(sequence) for sequence in student.sequences),
        blocks=None if method == "sensitivity" else student.block_importances,
        formats=(FormatLosses(format=format_, losses=losses),),
    )
