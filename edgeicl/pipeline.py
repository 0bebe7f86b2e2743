"""The order of the stages: distill once per recipe; plan and quantize, emit and check, measure and put
together once per target. Nothing else knows it.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgeicl.artifact import write_manifest
from edgeicl.cache_lock import alone, in_use
from edgeicl.errors import DeviationError
from edgeicl.job import Job
from edgeicl.replacement import replacing
from edgeicl.shared_cache import require_shared_cache
from edgeicl.specs.curve import SizeCurve
from edgeicl.specs.loading import dump_yaml
from edgeicl.specs.located import located
from edgeicl.specs.manifest import COMPRESSOR, MANIFEST, Deviation, EmitChecks, Manifest
from edgeicl.specs.quant_plan import QuantPlan
from edgeicl.specs.recipe import Recipe
from edgeicl.specs.target import Target
from edgeicl.steps import Steps
from edgeicl.store import StageOutput, Store, Workers, cache_root, digest_of, library_versions

if TYPE_CHECKING:
    from edgeicl.distill.result import DistillResult

log = logging.getLogger(__name__)

BENCH_PROMPT_TOKENS = 64
BENCH_DECODE_TOKENS = 32
BENCH_REPETITIONS = 5
BENCH_WARMUP_REPETITIONS = 1

_NOT_DEPLOYED = ("stage.json", "checks.json")


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
    """Builds every artifact of `job`; None in the helping processes of a launcher.

    Args:
        cache: Folder of stage outputs; `store.cache_root()` unless given.
        rebuild: Builds every stage anew, while no other build uses the cache.
        strict: Makes any deviation a DeviationError.
        measure: Benchmarks each artifact on this computer.

    Raises:
        EdgeiclError: `rebuild`, while another build uses the cache.
        SpecError, DataError, BudgetError, DeviationError: before anything is trained, what is known by then.
        DataError: several processes whose caches are not one folder.
    """
    from edgeicl.distill.stage import distill
    from edgeicl.distill.workers import workers as launched_workers
    from edgeicl.known_ahead import known_deviations
    from edgeicl.tasks.label_words import with_label_words

    started = time.monotonic()
    job = replace(job, recipe=with_label_words(job.recipe, job.base_folder))
    ahead = known_deviations(job)
    if strict:
        _forbid(ahead)
    root = cache or cache_root()
    workers = launched_workers()
    # Of each target: plan and quantize, recover, emit and check, benchmark, report.
    recovers = job.recipe.quantize.recover is not None
    steps = Steps(1 + len(job.targets) * (3 + recovers + measure))
    with _held(root, rebuild=rebuild, workers=workers):
        require_shared_cache(root, workers)
        with steps.step("distill") as step:
            store = Store(root, rebuild=rebuild, workers=workers)
            distilled = distill(job.recipe, store=store, base_folder=job.base_folder)
            step.reused = all(output.reused for _, output in distilled.outputs)
        if not workers.is_writer:
            return None
        # From here on this process is alone, the others have gone home: a store without workers.
        compiler = _Compiler(job, distilled, Store(root, rebuild=rebuild), steps, strict, measure)
        compiler.tell(distilled.deviations)
        built = tuple(
            compiler.build(target, folder) for target, folder in zip(job.targets, job.folders, strict=True)
        )
    return CompileResult(job.recipe, built, time.monotonic() - started)


def bench_tokens(target: Target) -> tuple[int, int]:
    """Tokens of the prompt, and tokens decoded after it, that a build is measured with."""
    prompt = max(1, min(BENCH_PROMPT_TOKENS, target.context_tokens // 2))
    return prompt, max(2, min(BENCH_DECODE_TOKENS, target.context_tokens - prompt - 1))


def quantized(job: Job, target: Target, distilled: DistillResult, store: Store) -> StageOutput:
    """The stage that chooses bits for one target and rounds the student's weights."""
    from edgeicl.quantize.stage import quantize

    return quantize(
        job.recipe,
        target,
        student=distilled.student,
        student_digest=distilled.digest,
        prefix=distilled.prefix,
        store=store,
        base_folder=job.base_folder,
    )


def recovered(
    job: Job, target: Target, distilled: DistillResult, plan: StageOutput, store: Store
) -> StageOutput:
    """The stage that trains what `quantized` gave as it is stored; where the recipe has none, its output."""
    settings = job.recipe.quantize.recover
    if settings is None:
        return plan
    from edgeicl.quantize.recovery_stage import recovered as trained

    return trained(
        job.recipe,
        settings,
        student=distilled.student,
        student_digest=distilled.digest,
        quantized=plan,
        targets=distilled.targets,
        prefix=distilled.prefix,
        store=store,
        base_folder=job.base_folder,
    )


def emitted(job: Job, target: Target, distilled: DistillResult, plan: StageOutput, store: Store) -> StageOutput:
    """The stage that writes and checks the artifact's files; `plan` is what `recovered` gave."""
    from edgeicl.emit.stage import emit

    return emit(
        job.recipe,
        target,
        student=distilled.student,
        quantized=plan,
        prefix=distilled.prefix,
        store=store,
        base_folder=job.base_folder,
    )


def _held(root: Path, *, rebuild: bool, workers: Workers) -> AbstractContextManager[None]:
    """The cache, so that nobody removes what this build reads; the writer holds it for its helpers."""
    if not workers.is_writer:
        return nullcontext()
    return alone(root, "--rebuild") if rebuild else in_use(root)


@dataclass(frozen=True)
class _Compiler:
    """The stages from the distilled student to an artifact."""

    job: Job
    distilled: DistillResult
    store: Store
    steps: Steps
    strict: bool
    measure: bool

    def build(self, target: Target, folder: Path) -> Built:
        """One artifact; what it is measured as is what is deployed."""
        plan = self._recover(target, self._quantize(target))
        listed = json.loads((plan.path / "deviations.json").read_text())
        deviations = tuple(Deviation.model_validate(entry) for entry in listed)
        self.tell(deviations)
        files = self._emit(target, plan)
        checks = EmitChecks.model_validate_json((files.path / "checks.json").read_bytes())
        self.tell(checks.deviations)

        recipe = self.job.recipe
        curve = SizeCurve.model_validate_json((plan.path / "curve.json").read_bytes())
        manifest = Manifest(
            name=recipe.name,
            target=target.name,
            seed=recipe.seed,
            recipe_digest=digest_of(recipe.model_dump(mode="json")),
            target_digest=digest_of(target.model_dump(mode="json")),
            versions=library_versions(),
            files={},
            plan=QuantPlan.model_validate_json((plan.path / "plan.json").read_bytes()),
            solver=recipe.quantize.solver,
            recovery=curve.recovery,
            ledger=checks.ledger,
            parity=checks.parity,
            accuracy=checks.accuracy,
            prefix=checks.prefix,
            logit_tokens=checks.logit_tokens,
            engine=checks.engine,
            optimum_agrees=checks.optimum_agrees,
            evaluation=self.distilled.evaluation,
            deviations=(*self.distilled.deviations, *deviations, *checks.deviations),
        )
        with replacing(folder, MANIFEST) as partial:
            for path in sorted(files.path.iterdir()):
                if path.name not in _NOT_DEPLOYED:
                    shutil.copyfile(path, partial / path.name)
            if self.distilled.compressor is not None:
                shutil.copytree(self.distilled.compressor, partial / COMPRESSOR)
            manifest = write_manifest(partial, manifest)
            if self.measure:
                manifest = self._measured(partial, target, manifest)
            with self.steps.step(f"report for {target.name}"):
                manifest = self._documented(partial, target, manifest, curve)
        return Built(folder, target, manifest)

    def _quantize(self, target: Target) -> StageOutput:
        with self.steps.step(f"plan bits and quantize for {target.name}") as step:
            output = quantized(self.job, target, self.distilled, self.store)
            step.reused = output.reused
        return output

    def _recover(self, target: Target, plan: StageOutput) -> StageOutput:
        if self.job.recipe.quantize.recover is None:
            return plan
        with self.steps.step(f"recover for {target.name}") as step:
            output = recovered(self.job, target, self.distilled, plan, self.store)
            step.reused = output.reused
        return output

    def _emit(self, target: Target, plan: StageOutput) -> StageOutput:
        with self.steps.step(f"emit and check for {target.name}") as step:
            output = emitted(self.job, target, self.distilled, plan, self.store)
            step.reused = output.reused
        return output

    def _measured(self, folder: Path, target: Target, manifest: Manifest) -> Manifest:
        """Never taken from the store: a measurement is of this computer, now."""
        from edgeicl.bench.conditions import whereabouts
        from edgeicl.bench.device_facts import usable_cores
        from edgeicl.bench.stage import bench
        from edgeicl.bench.workload import Workload

        cores = usable_cores()
        threads = min(target.threads, cores)
        deviations: tuple[Deviation, ...] = ()
        if threads < target.threads:
            deviations = (
                Deviation(
                    what="benchmark threads",
                    where="benchmark",
                    asked=f"{target.threads} threads, as target {target.name} says",
                    got=f"{threads} threads",
                    why=f"this process may use {cores} cores",
                ),
            )
            self.tell(deviations)
        workload = Workload(threads, *bench_tokens(target), BENCH_REPETITIONS, BENCH_WARMUP_REPETITIONS)
        with self.steps.step(f"benchmark for {target.name}"):
            result = bench(folder, workload)
        notes = (whereabouts(result.conditions, target), *result.notes)
        result = result.model_copy(update={"notes": notes})
        return manifest.model_copy(update={"bench": result, "deviations": (*manifest.deviations, *deviations)})

    def _documented(self, folder: Path, target: Target, manifest: Manifest, curve: SizeCurve) -> Manifest:
        """Adds what people read to the folder, and the manifest of everything in it."""
        from edgeicl.emit.model_card import model_card
        from edgeicl.report.stage import write_report

        card = model_card(
            folder,
            manifest,
            recipe=self.job.recipe,
            target=target,
            source=self.distilled.source,
            base_folder=self.job.base_folder,
        )
        (folder / "README.md").write_text(card)
        (folder / "plan.json").write_text(manifest.plan.model_dump_json(indent=1) + "\n")
        recipe = located(self.job.recipe, self.job.base_folder)
        (folder / "recipe.resolved.yaml").write_text(dump_yaml(recipe))
        (folder / "target.resolved.yaml").write_text(dump_yaml(target))
        write_report(folder, manifest=manifest, curve=curve)
        return write_manifest(folder, manifest)

    def tell(self, deviations: Sequence[Deviation]) -> None:
        """Nothing degrades in silence: a warning each, an error under --strict."""
        for line in _lines(deviations):
            log.warning("deviation: %s", line)
        if self.strict:
            _forbid(deviations)


def _forbid(deviations: Sequence[Deviation]) -> None:
    """DeviationError if there are any."""
    if deviations:
        told = f"--strict: {len(deviations)} deviation(s) from what was asked"
        raise DeviationError(
            "\n  ".join([told, *_lines(deviations)]),
            next_step="change the recipe or target so that it asks for what it gets, or leave out --strict",
        )


def _lines(deviations: Sequence[Deviation]) -> list[str]:
    """One line for all places where the same was asked and not done for the same reason."""
    places: dict[tuple[str, str, str, str], list[str]] = {}
    for entry in deviations:
        places.setdefault((entry.what, entry.asked, entry.got, entry.why), []).append(entry.where)
    return [
        f"{where[0] if len(where) == 1 else f'{len(where)} places, {where[0]} first'}: "
        f"{what}: asked {asked}, got {got}: {why}"
        for (what, asked, got, why), where in places.items()
    ]
