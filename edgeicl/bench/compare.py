"""`edgeicl compare`: artifacts beside rivals on the same machine, student, threads and lengths, in turn.

One process at a time: whatever else the machine does hits all alike, and the ratio of each round shows it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from edgeicl.bench.conditions import read_back_conditions
from edgeicl.bench.devices.device import Device
from edgeicl.bench.devices.local import THIS_COMPUTER
from edgeicl.bench.entrants import ArtifactEntrant, RivalEntrant, entrants
from edgeicl.bench.kept_rounds import KeptRounds
from edgeicl.bench.quiet import disquiet
from edgeicl.bench.rivals.checkpoint import require_same_shape, write_random_checkpoint
from edgeicl.bench.rivals.contender import RivalBuilder
from edgeicl.bench.rivals.table import environments_named, require_provider, rivals_named
from edgeicl.bench.rounds import NOISY_WIDTH, ONE_ROUND, Course, run_rounds
from edgeicl.bench.workload import Workload
from edgeicl.errors import BenchError
from edgeicl.models.model_folder import model_config
from edgeicl.numerics.paired_ratio import paired_ratio
from edgeicl.progress import track
from edgeicl.specs.comparison import Comparison, Contestant, NotMeasured, Pairing
from edgeicl.store import Store, folder_hashes

log = logging.getLogger(__name__)


@dataclass
class Contest:
    """Artifacts and rivals that are ready to run."""

    ours: list[ArtifactEntrant]
    theirs: list[RivalEntrant]
    not_measured: list[NotMeasured]
    weights: str
    notes: tuple[str, ...]
    kept: KeptRounds
    """Entered while it runs, it goes on where an interrupted one of the same contest stood."""

    def run(self, rounds: int, *, most_rounds: int = 0, number: int = 0) -> Comparison:
        """One comparison over `rounds` rounds, more while they disagree, up to `most_rounds`.

        A rival that fails is left out from then on. `number` tells runs of the same contest apart.

        Raises:
            BenchError: no rival could be measured, or the measurement of an artifact failed.
        """
        everyone: list[ArtifactEntrant | RivalEntrant] = [*self.ours, *self.theirs]
        for entrant in everyone:
            entrant.runs.clear()
        course = Course()
        if self.theirs:
            course = run_rounds(
                self.ours,
                self.theirs,
                rounds,
                most_rounds=most_rounds,
                doubts=self._noise,
                kept=self.kept,
                run=number,
            )
            self.not_measured += course.failed
        if not self.theirs:
            told = "\n".join(f"{entry.name}: {entry.reason}" for entry in self.not_measured)
            raise BenchError(f"no rival could be measured, so there is nothing to compare with:\n{told}")
        return summarized(
            self.ours,
            self.theirs,
            self.not_measured,
            weights=self.weights,
            notes=(*self.notes, *course.notes),
            other_work=course.other_work,
        )

    def _noise(self) -> tuple[str, ...]:
        """Of what all processes gave so far."""
        sides = ([entry.contestant() for entry in side] for side in (self.ours, self.theirs))
        return noise(pairings_of(*sides))


def compare(contest: Contest, *, rounds: int, most_rounds: int = 0) -> Comparison:
    """One comparison; what its rounds gave outlives a kill. BenchError as in `Contest.run`."""
    with contest.kept:
        return contest.run(rounds, most_rounds=most_rounds)


def prepare(
    artifacts: Sequence[Path],
    workload: Workload,
    *,
    rivals: Sequence[str],
    model: Path | None,
    store: Store,
    pythons: Mapping[str, Path] | None = None,
    install: bool = False,
    device: Device = THIS_COMPUTER,
) -> Contest:
    """The artifacts in the folders `artifacts` and `rivals`, built and checked.

    A rival that can't be had, built or trusted is in `not_measured`, with the reason.

    Args:
        model: Checkpoint folder that the rivals are built from; without one it has random weights of the
            artifacts' shape, which run just as fast.
        store: Where built rivals are kept for the next time.
        pythons: Environment of a rival -> interpreter that has its libraries.
        install: Make missing environments with pip.
        device: Where the artifacts run; rivals of another kind of processor are refused.

    Raises:
        SpecError: an unknown rival or environment, or a rival of another kind of processor than the device's.
        DataError: artifacts of several shapes, or a checkpoint of another.
        IntegrityError: a file of an artifact is not the one that was written.
    """
    wanted_rivals = rivals_named(rivals)
    require_provider(wanted_rivals, device.provider)
    environments_named(list(pythons or {}))
    ours, notes = entrants(artifacts, workload, device=device)
    if device.provider == "cuda":
        notes += ("memory is the host's; the GPU's is not counted",)
    config = model_config(artifacts[0])
    for other in artifacts[1:]:
        require_same_shape(other, config)
    if model is not None:
        require_same_shape(model, config)
    longest = max((entry.workload for entry in ours), key=lambda found: found.decode_tokens)
    checkpoint = model or random_checkpoint(config, store)
    builder = RivalBuilder(
        checkpoint=checkpoint,
        checkpoint_digests=folder_hashes(checkpoint),
        vocabulary=ours[0].artifact.vocabulary,
        context_tokens=longest.prompt_tokens + max(1, longest.decode_tokens),
        store=store,
        pythons=pythons or {},
        install=install,
    )
    theirs: list[RivalEntrant] = []
    not_measured: list[NotMeasured] = []
    reference = builder.reference()
    with track("rivals", len(wanted_rivals)) as advance:
        for rival in wanted_rivals:
            try:
                contender = builder.contender(rival, reference)
                theirs.append(RivalEntrant(contender, longest, builder.vocabulary))
            except BenchError as error:
                log.warning("%s is not measured: %s", rival.name, error)
                not_measured.append(NotMeasured(name=rival.name, reason=str(error)))
            advance(1)
    weights = f"weights of {model.name}" if model else "random weights of the same shape"
    entrants_of_all: list[ArtifactEntrant | RivalEntrant] = [*ours, *theirs]
    kept = KeptRounds(store.root, [entrant.about for entrant in entrants_of_all])
    return Contest(ours, theirs, not_measured, weights, notes, kept)


def random_checkpoint(config: Mapping[str, Any], store: Store) -> Path:
    """Random weights in the shape of `config`, from the store."""

    def build(folder: Path) -> None:
        write_random_checkpoint(folder / "model", config)

    return store.run("random-checkpoint", {"config": dict(config)}, build).path / "model"


def paired(ours: Contestant, theirs: Contestant) -> Pairing:
    """The ratios of one artifact over one rival."""

    def ratio_of(name: str) -> Any:
        first, second = ([getattr(entry, name) for entry in side.rounds] for side in (ours, theirs))
        return None if None in (*first, *second) else paired_ratio(first, second)

    return Pairing(
        artifact=ours.name,
        rival=theirs.name,
        first_token=ratio_of("first_token_ms"),
        prefill=ratio_of("prefill_tokens_per_second"),
        decode=ratio_of("decode_tokens_per_second"),
        file_bytes=ours.file_bytes / theirs.file_bytes,
        peak_rss=ratio_of("peak_rss_bytes"),
    )


def pairings_of(artifacts: Sequence[Contestant], rivals: Sequence[Contestant]) -> tuple[Pairing, ...]:
    """Every artifact with every rival."""
    return tuple(paired(artifact, rival) for artifact in artifacts for rival in rivals)


def noise(pairings: Sequence[Pairing]) -> tuple[str, ...]:
    """One doubt where rounds disagree on ratios of speed: how many of them, and which is the widest."""
    if any(len(found.prefill.values) == 1 for found in pairings):
        return (ONE_ROUND,)
    speeds = [
        (what, ratio, found)
        for found in pairings
        for what, ratio in (("prefill", found.prefill), ("decode", found.decode))
        if ratio is not None
    ]
    wide = [entry for entry in speeds if entry[1].width > NOISY_WIDTH]
    if not wide:
        return ()
    what, ratio, found = max(wide, key=lambda entry: entry[1].width)
    count = f"{len(wide)} of {len(speeds)} ratios" if len(speeds) > 1 else "the ratio"
    return (
        f"noisy: rounds disagree by more than {NOISY_WIDTH:.0%} on {count} of speed, most on {what} of "
        f"{found.artifact} to {found.rival}, between {ratio.low:.2f} and {ratio.high:.2f}",
    )


def summarized(
    ours: Sequence[ArtifactEntrant],
    theirs: Sequence[RivalEntrant],
    not_measured: Sequence[NotMeasured],
    *,
    weights: str,
    notes: tuple[str, ...],
    other_work: Sequence[float] = (),
) -> Comparison:
    """Every artifact over every rival, with what speaks against the figures."""
    artifacts = tuple(entry.contestant() for entry in ours)
    rivals = tuple(entry.contestant() for entry in theirs)
    pairings = pairings_of(artifacts, rivals)
    told = disquiet(other_work)
    runs = [run for entry in ours for run in entry.runs]
    probed = [max(run["bandwidth"]["memory"].values()) for run in runs if run["bandwidth"]]
    first = max(ours, key=lambda entry: entry.workload.decode_tokens)
    return Comparison(
        fidelity="measured",
        conditions=read_back_conditions(first.runs[0], first.workload, artifact_sha256=first.artifact.sha256),
        weights=weights,
        artifacts=artifacts,
        rivals=rivals,
        not_measured=tuple(not_measured),
        pairings=pairings,
        bandwidth_bytes_per_second=median(probed) if probed else None,
        other_work=tuple(other_work),
        doubts=(*noise(pairings), *([] if told is None else [f"not quiet: {told}"])),
        notes=notes,
    )
