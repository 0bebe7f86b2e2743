"""The order of the stages: distill once per recipe; plan and quantize, emit and check, measure and put
together once per target. Nothing else knows it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeicl.artifact import replacing, write_manifest
from edgeicl.errors import DeviationError
from edgeicl.job import Job
from edgeicl.specs.curve import SizeCurve
from edgeicl.specs.loading import dump_yaml
from edgeicl.specs.manifest import Deviation, EmitChecks, Manifest
from edgeicl.specs.measurement import BenchResult
from edgeicl.specs.quant_plan import QuantPlan
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.target import Target
from edgeicl.steps import Steps
from edgeicl.store import StageOutput, Store, cache_root, digest_of, library_versions
from edgeicl.workers import launched_workers

if TYPE_CHECKING:
    from edgeicl.distill.stage import DistillResult

log = logging.getLogger(__name__)

BENCH_PROMPT_TOKENS = 64
BENCH_DECODE_TOKENS = 32
BENCH_REPETITIONS = 5
BENCH_WARMUP_REPETITIONS = 1

_NOT_COPIED = ("stage.json", "checks.json")


@dataclass(frozen=True)
class Built:
    """One finished artifact."""

    folder: Path
    target: Target
    manifest: Manifest


@dataclass(frozen=True)
class CompileResult:
    """All artifacts of one run."""

    recipe: Recipe
    built: tuple[Built, ...]
    seconds: float


def compile_job(
    job: Job, *, cache: Path | None = None, rebuild: bool = False, strict: bool = False, measure: bool = True
) -> CompileResult | None:
    """Builds every artifact of `job`; None in the helping processes of `accelerate launch`.

    Args:
        cache: Folder of stage outputs; `store.cache_root()` unless given.
        rebuild: Builds every stage anew.
        strict: Makes any deviation a DeviationError.
        measure: Benchmarks each artifact on this computer.
    """
    from edgeicl.distill.stage import distill

    started = time.monotonic()
    root = cache or cache_root()
    workers = launched_workers()
    steps = Steps(_titles(job, measure), memory=root / "seconds" / f"{job.recipe.name}.json")
    with steps.step("distill") as step:
        store = Store(root, rebuild=rebuild, workers=workers)
        distilled = distill(job.recipe, store=store, base_folder=job.base_folder)
        step.reused = all(output.reused for _, output in distilled.outputs)
    if not workers.is_writer:
        return None
    # From here on this process is alone: the others have gone home.
    alone = Store(root, rebuild=rebuild)
    built = tuple(
        _build(job.recipe, target, folder, job.base_folder, distilled, alone, steps, strict, measure)
        for target, folder in zip(job.targets, job.folders, strict=True)
    )
    return CompileResult(job.recipe, built, time.monotonic() - started)


def _titles(job: Job, measure: bool) -> list[str]:
    titles = ["distill"]
    for target in job.targets:
        titles += [f"plan bits and quantize for {target.name}", f"emit and check for {target.name}"]
        titles += [f"benchmark for {target.name}"] * measure + [f"report for {target.name}"]
    return titles


def _build(
    recipe: Recipe,
    target: Target,
    folder: Path,
    base_folder: Path,
    distilled: DistillResult,
    store: Store,
    steps: Steps,
    strict: bool,
    measure: bool,
) -> Built:
    from edgeicl.emit.stage import emit
    from edgeicl.quantize.stage import quantize

    with steps.step(f"plan bits and quantize for {target.name}") as step:
        quantized = quantize(
            recipe,
            target,
            student=distilled.student,
            student_digest=distilled.digest,
            store=store,
            base_folder=base_folder,
        )
        step.reused = quantized.reused
    listed = json.loads((quantized.path / "deviations.json").read_text())
    deviations = [Deviation.model_validate(entry) for entry in listed]
    _refuse_deviations(deviations, strict)

    with steps.step(f"emit and check for {target.name}") as step:
        emitted = emit(
            recipe,
            target,
            student=distilled.student,
            quantized=quantized,
            store=store,
            base_folder=base_folder,
        )
        step.reused = emitted.reused
    checks = EmitChecks.model_validate_json((emitted.path / "checks.json").read_bytes())
    deviations += checks.deviations

    measured: BenchResult | None = None
    if measure:
        with steps.step(f"benchmark for {target.name}"):
            measured, changed = _measure(emitted.path, target)
            deviations += changed
    _refuse_deviations(deviations, strict)

    manifest = Manifest(
        name=recipe.name,
        target=target.name,
        seed=recipe.seed,
        recipe_digest=digest_of(recipe.model_dump(mode="json")),
        target_digest=digest_of(target.model_dump(mode="json")),
        versions=library_versions(),
        files={},
        plan=QuantPlan.model_validate_json((quantized.path / "plan.json").read_bytes()),
        ledger=checks.ledger,
        parity=checks.parity,
        accuracy=checks.accuracy,
        evaluation=distilled.evaluation,
        bench=measured,
        deviations=tuple(deviations),
    )
    with steps.step(f"report for {target.name}"):
        manifest = _assemble(folder, recipe, target, manifest, distilled.student, quantized, emitted)
    return Built(folder, target, manifest)


def _measure(artifact: Path, target: Target) -> tuple[BenchResult, list[Deviation]]:
    from edgeicl.bench.stage import bench

    cores = os.cpu_count() or 1
    threads = min(target.threads, cores)
    deviations = []
    if threads < target.threads:
        deviations.append(
            Deviation(
                what="benchmark threads",
                where="benchmark",
                asked=f"{target.threads} threads, as target {target.name} says",
                got=f"{threads} threads",
                why=f"this computer has {cores} cores",
            )
        )
    prompt_tokens = max(1, min(BENCH_PROMPT_TOKENS, target.context_tokens // 2))
    result = bench(
        artifact,
        threads=threads,
        prompt_tokens=prompt_tokens,
        decode_tokens=max(2, min(BENCH_DECODE_TOKENS, target.context_tokens - prompt_tokens - 1)),
        repetitions=BENCH_REPETITIONS,
        warmup_repetitions=BENCH_WARMUP_REPETITIONS,
    )
    return result, deviations


def _assemble(
    folder: Path,
    recipe: Recipe,
    target: Target,
    manifest: Manifest,
    student: Path,
    quantized: StageOutput,
    emitted: StageOutput,
) -> Manifest:
    from edgeicl.emit.model_card import model_card
    from edgeicl.report.stage import write_report

    curve = SizeCurve.model_validate_json((quantized.path / "curve.json").read_bytes())
    with replacing(folder) as partial:
        for path in sorted(emitted.path.iterdir()):
            if path.name not in _NOT_COPIED:
                shutil.copyfile(path, partial / path.name)
        shutil.copyfile(quantized.path / "plan.json", partial / "plan.json")
        (partial / "recipe.resolved.yaml").write_text(dump_yaml(recipe))
        (partial / "target.resolved.yaml").write_text(dump_yaml(target))
        (partial / "README.md").write_text(model_card(manifest, recipe=recipe, target=target, student=student))
        write_report(partial, manifest=manifest, curve=curve)
        return write_manifest(partial, manifest)


def _refuse_deviations(deviations: Sequence[Deviation], strict: bool) -> None:
    for deviation in deviations:
        log.warning("deviation: %s: asked %s, got %s", deviation.where, deviation.asked, deviation.got)
    if strict and deviations:
        lines = [f"  {d.where}: {d.what}: asked {d.asked}, got {d.got}: {d.why}" for d in deviations]
        raise DeviationError(
            "\n".join([f"--strict: {len(deviations)} deviation(s) from what was asked", *lines]),
            next_step="change the recipe or target so that it asks for what it gets, or leave out --strict",
        )
