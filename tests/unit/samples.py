"""Small made-up specs, shared by tests: two layers, figures that can be added up by hand."""

from __future__ import annotations

from edgeicl.specs.curve import CurvePoint, SizeCurve
from edgeicl.specs.manifest import (
    ArtifactAccuracy,
    Deviation,
    EmitChecks,
    LedgerEntry,
    Manifest,
    ParityCheck,
)
from edgeicl.specs.measurement import (
    AccuracyRow,
    BenchResult,
    Conditions,
    Estimate,
    Evaluation,
    Percentiles,
)
from edgeicl.specs.quant_plan import Format, GroupPlan, QuantPlan
from edgeicl.specs.target import Budget, Target

INT4, INT8 = Format(bits=4, block_size=32), Format(bits=8, block_size=32)

TARGET = Target(
    version=1,
    name="tiny",
    description="",
    threads=1,
    context_tokens=8,
    runtime_overhead_bytes=1,
    formats=(INT4,),
    budget=Budget(artifact_bytes=2000),
    sources={},
)

PLAN = QuantPlan(
    model_digest="f" * 64,
    importance="sensitivity",
    groups=(
        GroupPlan(group="layers.0.attention.qkv", format=INT4, importance=0.5),
        GroupPlan(group="layers.0.mlp.up", format=INT8, importance=1.5),
        GroupPlan(group="layers.1.attention.qkv", format=INT8),
        GroupPlan(group="layers.1.mlp.up", format=Format(bits=16)),
        GroupPlan(group="embedding", format=INT4),
    ),
    predicted_weight_bytes=900,
    predicted_artifact_bytes=1000,
    predicted_resident_bytes=2_000_000,
)

LEDGER = (
    LedgerEntry(name="qkv.codes", file="model.onnx.data", bytes=300, group="layers.0.attention.qkv"),
    LedgerEntry(name="qkv.scales", file="model.onnx.data", bytes=100, group="layers.0.attention.qkv"),
    LedgerEntry(name="embedding.codes", file="model.onnx.data", bytes=500, group="embedding"),
    LedgerEntry(name="graph", file="model.onnx", bytes=100),
)

DEVIATION = Deviation(
    what="block size",
    where="layers.0.mlp.up",
    asked="int4/block64",
    got="int8/block32",
    why="96 is no multiple",
)


def estimate(mean: float, *, half: float = 0.01) -> Estimate:
    return Estimate(mean=mean, low=mean - half, high=mean + half, values=(mean - half, mean + half))


def evaluation() -> Evaluation:
    rows = tuple(
        AccuracyRow(
            method=method,
            data="in_domain",
            accuracy=estimate(mean),
            balanced_accuracy=estimate(mean),
            accuracy_by_label={"entailment": estimate(mean + 0.02), "contradiction": estimate(mean - 0.02)},
            examples=500,
        )
        for method, mean in (("zero-shot", 0.5), ("context distillation", 0.9))
    )
    gain = Estimate(mean=31.5, low=28.0, high=35.0, values=(30.0, 33.0))
    return Evaluation(gain_points=gain, rows=rows, deployed_seed=3)


def bench_result() -> BenchResult:
    return BenchResult(
        fidelity="measured",
        conditions=Conditions(
            machine="x86_64",
            processor="<b>a processor</b>",
            logical_cores=2,
            threads=2,
            runtime="onnxruntime",
            runtime_version="1.31.1",
            providers=("CPUExecutionProvider",),
            artifact_sha256="0" * 64,
            prompt_tokens=64,
            decode_tokens=32,
            warmup_repetitions=1,
            repetitions=2,
        ),
        load_ms=12.0,
        first_token_ms=4.0,
        prefill_tokens_per_second=16000.0,
        decode_tokens_per_second=500.0,
        decode_latency=Percentiles(p50_ms=2.0, p90_ms=2.5, p99_ms=3.0),
        peak_rss_bytes=50_000_000,
        artifact_bytes=1000,
        bytes_per_token=1000,
        bandwidth_bytes_per_second=1e9,
        ceiling_tokens_per_second=1000.0,
        first_token_samples_ms=(4.0, 4.1),
        decode_samples_ms=((2.0, 2.1), (2.0, 2.2)),
    )


def manifest(*, deviations: tuple[Deviation, ...] = (), bench: BenchResult | None = None) -> Manifest:
    return Manifest(
        name="sample",
        target="tiny",
        seed=0,
        recipe_digest="1" * 64,
        target_digest="2" * 64,
        versions={"edgeicl": "0.1.0", "torch": "2.13.0"},
        files={},
        plan=PLAN,
        ledger=LEDGER,
        parity=(ParityCheck(name="prefill", max_abs_difference=1e-5, tolerance=1e-3, reference_scale=10.0),),
        accuracy=(
            ArtifactAccuracy(data="in_domain", student=0.9, artifact=0.896, examples=500, limit_points=1.0),
        ),
        evaluation=evaluation(),
        bench=bench,
        deviations=deviations,
    )


def emit_checks(*, deviations: tuple[Deviation, ...] = ()) -> EmitChecks:
    whole = manifest()
    return EmitChecks(ledger=whole.ledger, parity=whole.parity, accuracy=whole.accuracy, deviations=deviations)


def _point(label: str, kind: str, size: int, loss: float, measured: float | None = None) -> CurvePoint:
    return CurvePoint.model_validate(
        {
            "label": label,
            "kind": kind,
            "artifact_bytes": size,
            "resident_bytes": size + 100,
            "predicted_loss": loss,
            "measured_loss": measured,
        }
    )


CURVE = SizeCurve(
    loss_unit="nats of KL, one group at a time",
    artifact_budget_bytes=1250,
    points=(
        _point("uniform int4/block32", "uniform", 800, 0.4),
        _point("best of 850 bytes", "allocated", 850, 0.3),
        _point("LSAQ", "rule", 990, 0.2, 0.25),
        _point("chosen", "chosen", 1000, 0.1, 0.12),
        _point("best of 1300 bytes", "allocated", 1300, 0.01),
    ),
)
