"""Who takes part in a comparison: what each runs, and what its processes gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from edgeicl.bench.artifact import Artifact, open_artifact
from edgeicl.bench.devices.device import Device
from edgeicl.bench.devices.local import THIS_COMPUTER
from edgeicl.bench.figures import fastest_probes, verify_threads
from edgeicl.bench.rivals.contender import Contender
from edgeicl.bench.summary import prefill_tokens_per_second, tokens_per_second
from edgeicl.bench.workload import Workload
from edgeicl.bench.workload_run import run_workload
from edgeicl.specs.comparison import ArtifactContestant, RivalContestant, Round


@dataclass
class ArtifactEntrant:
    """An artifact, what it runs, and what its processes gave so far."""

    name: str
    artifact: Artifact
    workload: Workload
    device: Device = THIS_COMPUTER
    runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def about(self) -> dict[str, Any]:
        """All that decides what its processes do."""
        return {
            "artifact": self.name,
            "sha256": self.artifact.sha256,
            "workload": asdict(self.workload),
            "on": self.device.address,
        }

    @property
    def bytes_per_token(self) -> int | None:
        """Weight and cache bytes that one decoded token reads."""
        if not self.workload.decode_tokens:
            return None
        cache = self.artifact.cache_bytes(self.workload.mean_decode_depth_tokens)
        return self.artifact.weight_bytes_per_token + cache

    def run(self) -> dict[str, Any]:
        """What one process more gives."""
        found = run_workload(
            graph=self.artifact.graph,
            engine=self.artifact.manifest.engine,
            workload=self.workload,
            vocabulary=self.artifact.vocabulary,
            bytes_per_token=self.bytes_per_token or self.artifact.weight_bytes_per_token,
            device=self.device,
        )
        verify_threads(found, self.workload.threads)
        return found

    def contestant(self) -> ArtifactContestant:
        """What is told of it."""
        rounds = [round_of(found, self.workload.prompt_tokens) for found in self.runs]
        per_token = self.bytes_per_token
        shares = [
            entry.decode_tokens_per_second * per_token / ceiling_of(found)
            for entry, found in zip(rounds, self.runs, strict=True)
            if per_token is not None and found["bandwidth"] and entry.decode_tokens_per_second is not None
        ]
        return ArtifactContestant(
            name=self.name,
            description=describe(self.artifact),
            file_bytes=self.artifact.model_bytes,
            rounds=tuple(rounds),
            sha256=self.artifact.sha256,
            bytes_per_token=per_token,
            ceiling_shares=tuple(shares),
        )


@dataclass
class RivalEntrant:
    """A rival, what it runs, and what its processes gave so far."""

    contender: Contender
    workload: Workload
    vocabulary: int
    runs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.contender.rival.name

    @property
    def about(self) -> dict[str, Any]:
        """All that decides what its processes do."""
        return {
            "rival": self.name,
            "built": str(self.contender.folder),
            "python": str(self.contender.process.python.path),
            "versions": dict(self.contender.process.python.versions),
            "workload": asdict(self.workload),
        }

    def run(self) -> dict[str, Any]:
        """What one process more gives."""
        return self.contender.measure(self.workload, vocabulary=self.vocabulary)

    def contestant(self) -> RivalContestant:
        """What is told of it."""
        rival = self.contender.rival
        return RivalContestant(
            name=rival.name,
            description=rival.description,
            file_bytes=self.contender.file_bytes,
            rounds=tuple(round_of(found, self.workload.prompt_tokens) for found in self.runs),
            versions=dict(self.contender.process.python.versions),
            logit_error=self.contender.logit_error,
            logit_tolerance=rival.logit_tolerance,
        )


def entrants(
    artifacts: Sequence[Path], workload: Workload, *, device: Device = THIS_COMPUTER
) -> tuple[list[ArtifactEntrant], tuple[str, ...]]:
    """The opened artifacts with what each runs, all with the same prompt, and notes on what was changed."""
    opened = [open_artifact(path) for path in artifacts]
    notes: dict[str, None] = {}
    fitted, cut = workload.fitted(min(artifact.context_tokens for artifact in opened))
    notes |= dict.fromkeys(cut)
    names = [path.name for path in artifacts]
    found = []
    for path, artifact in zip(artifacts, opened, strict=True):
        name = path.name if names.count(path.name) == 1 else str(path)
        own, left_out = fitted.of(generates=artifact.generates)
        prefixed = ("it was measured without the prefix that stands before its queries",)
        told = (*left_out, *(prefixed if artifact.prefixes else ()))
        notes |= dict.fromkeys(f"{name}: {note}" for note in told)
        found.append(ArtifactEntrant(name, artifact, own, device))
    return found, tuple(notes)


def describe(opened: Artifact) -> str:
    """The artifact by name and formats."""
    plan = opened.manifest.plan
    formats = sorted({str(entry.format) for entry in plan.groups})
    copy = f", layers once more in {plan.prompt_format} for prompts" if plan.prompt_format else ""
    whole = ", whole attention to prompts" if plan.prompt_attention == "whole" else ""
    return f"{opened.manifest.name} for {opened.manifest.target}: {', '.join(formats)}{copy}{whole}"


def round_of(run: Mapping[str, Any], prompt_tokens: int) -> Round:
    """The figures of one process."""
    speeds = tokens_per_second(run["decode_ms"])
    return Round(
        load_ms=run["load_ms"],
        first_token_ms=median(run["first_token_ms"]),
        prefill_tokens_per_second=prefill_tokens_per_second(run["first_token_ms"], prompt_tokens),
        decode_tokens_per_second=median(speeds) if speeds else None,
        baseline_rss_bytes=run["baseline_rss_bytes"],
        peak_rss_bytes=run["peak_rss_bytes"],
        first_token_samples_ms=tuple(run["first_token_ms"]),
        decode_samples_ms=tuple(tuple(row) for row in run["decode_ms"]),
    )


def ceiling_of(run: Mapping[str, Any]) -> float:
    """Bytes per second that the fastest probe of a run read, from memory or over what one token reads."""
    memory, token, _ = fastest_probes(run["bandwidth"])
    return max(memory or 0.0, token or 0.0)
