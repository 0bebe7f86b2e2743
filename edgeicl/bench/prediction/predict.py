"""`edgeicl predict`: what an artifact does on a target that is not at hand, and how sure that is.

Three methods, the best that the target's facts allow: costs that `edgeicl probe` measured on the device;
bandwidth calibrated by published speeds of the same device; the memory's specified bandwidth. The first two are
the planner's own formula (`quantize.latency`), so plan and prediction agree.
"""

from __future__ import annotations

from pathlib import Path

from edgeicl.bench.artifact import Artifact, open_artifact
from edgeicl.bench.prediction.efficiency import fitted
from edgeicl.bench.prediction.holdout import hold_out
from edgeicl.bench.prediction.prefill import flops_per_second
from edgeicl.bench.prediction.published import published_speeds
from edgeicl.errors import BenchError
from edgeicl.models.anatomy import EMBEDDING, Anatomy, WeightGroup
from edgeicl.models.architectures.table import anatomy_of
from edgeicl.models.flops import prompt_flops
from edgeicl.models.model_folder import model_config
from edgeicl.models.prompt_time import product_nanoseconds, rest_of_prompt_ms
from edgeicl.numerics.decode_reads import read_bytes
from edgeicl.numerics.size import group_bytes
from edgeicl.specs.byte_size import format_byte_size
from edgeicl.specs.catalog import load_target, shipped
from edgeicl.specs.prediction import HoldOut, Interval, Method, Prediction
from edgeicl.specs.target import Calibration, Target
from edgeicl.store import digest_of

RESOLVED = "target.resolved.yaml"


def predict(
    artifact: Path, target: Target, *, prompt_tokens: int | None = None, depth_tokens: int | None = None
) -> Prediction:
    """The artifact in the folder `artifact` on `target`.

    Args:
        prompt_tokens: Of the prompt whose first token is predicted; the target's unless given.
        depth_tokens: Positions in the cache when a token is decoded; the artifact's whole context unless given.

    Raises:
        IntegrityError: a file of the artifact is not the one that was written.
        BenchError: nothing is known of the target's speed, or it is no CPU.
    """
    opened = open_artifact(artifact)
    method = method_for(target)
    before = opened.prefix_tokens
    depth, depth_cut = _fitted("depth", depth_tokens, opened.context_tokens, opened.context_tokens)
    usual = target.prompt_tokens or target.context_tokens
    room = opened.context_tokens - before
    prompt, prompt_cut = _fitted("prompt", prompt_tokens, min(usual, room), room)
    token_bytes = opened.weight_bytes_per_token + opened.cache_bytes(depth)
    known = hold_out(method) if method != "probe" else None
    notes = _notes(opened, target, method, token_bytes)
    decode = None
    if opened.generates:
        decode = _within(1e3 / decode_ms(opened, target, method, depth), known)
        if method != "probe" and token_bytes < _least_bytes():
            decode = decode.model_copy(update={"low": 0.0, "high": decode.value})
    first, told = first_token(opened, target, method, prompt)
    held, of_memory = resident_bytes(artifact, opened, target)
    return Prediction(
        target=target.name,
        artifact_sha256=opened.sha256,
        method=method,
        hold_out=known,
        depth_tokens=depth,
        bytes_per_token=token_bytes,
        decode_tokens_per_second=decode,
        prompt_tokens=prompt,
        first_token_ms=first,
        resident_bytes=held,
        notes=(*depth_cut, *prompt_cut, *notes, *told, *of_memory),
    )


def _fitted(what: str, asked: int | None, usual: int, most: int) -> tuple[int, tuple[str, ...]]:
    """Tokens that fit the artifact, and a note where fewer than asked for do."""
    if asked is None or asked <= most:
        return asked or usual, ()
    return most, (f"a {what} of {most} tokens instead of {asked}: the artifact's context holds no more",)


def method_for(target: Target) -> Method:
    """The best that the target's facts allow. BenchError where they allow none."""
    if target.provider != "cpu":
        raise BenchError(f"target {target.name} is for {target.provider}: only CPUs are predicted")
    if target.calibration is not None:
        return "probe" if target.calibration.costs else "published"
    if target.memory_bandwidth_bytes_per_second is not None:
        return "specification"
    raise BenchError(
        f"nothing is known of the speed of target {target.name}",
        next_step="measure it with `edgeicl probe --on ...`, or give it memory_bandwidth_bytes_per_second",
    )


def decode_ms(opened: Artifact, target: Target, method: Method, depth_tokens: int) -> float:
    """Of one token behind `depth_tokens` positions."""
    total = opened.weight_bytes_per_token + opened.cache_bytes(depth_tokens)
    if method == "specification":
        assert target.memory_bandwidth_bytes_per_second is not None
        efficiency = fitted(published_speeds())
        return 1e3 * total / efficiency.bandwidth(target.memory_bandwidth_bytes_per_second, total)
    calibration = target.calibration
    assert calibration is not None
    reads = total
    if opened.manifest.engine == "fused":
        reads += _counted_otherwise(opened, calibration)
    return calibration.fixed_decode_ms_of(opened.layers) + 1e3 * reads / calibration.bandwidth_bytes_per_second


def _counted_otherwise(opened: Artifact, calibration: Calibration) -> int:
    """Bytes by which groups count more or less at the calibrated bandwidth than they have in the file."""
    formats = {entry.group: entry.format for entry in opened.manifest.plan.groups}
    difference = 0
    for group in _multiplied(anatomy_of(model_config(opened.path)), opened):
        format_ = formats[group.name]
        rows, columns = group.shape
        in_file = rows * columns * format_.bits // 8
        if format_.quantized:
            in_file = group_bytes(rows, columns, format_)
        difference += read_bytes(group.shape, format_, calibration) - in_file
    return difference


def _multiplied(anatomy: Anatomy, opened: Artifact) -> list[WeightGroup]:
    """Groups that a token multiplies with: all but an embedding that it looks up."""
    looked_up = EMBEDDING if not anatomy.tied or not opened.generates else None
    return [group for group in anatomy.groups if group.name != looked_up]


def first_token(
    opened: Artifact, target: Target, method: Method, prompt_tokens: int
) -> tuple[Interval | None, tuple[str, ...]]:
    """Time until the first token, and what must be said of it."""
    if opened.manifest.engine != "fused":
        return None, ("the first token of an exported graph is not predicted",)
    config = model_config(opened.path)
    before = opened.prefix_tokens
    if method == "probe":
        assert target.calibration is not None
        notes = []
        if before:
            notes.append(f"the first token without attention to the {before} tokens before the query")
        unknown = target.calibration.whole_attention_ps_per_product is None
        if unknown and opened.manifest.plan.prompt_attention == "whole":
            notes.append("attention to a prompt as in tiles: whole wasn't measured there")
        first = _probed_first_token(opened, target, prompt_tokens)
        if first is None and opened.manifest.plan.cache_bits == 8:
            notes.append("no first token: prompts in these formats beside a cache of integers weren't measured")
        return first, tuple(notes)
    rates = flops_per_second(i8mm="i8mm" in target.instruction_features)
    if rates is None:
        return None, ("no published speeds of prompts on chips of this kind",)
    logits = len(opened.manifest.logit_tokens) if opened.manifest.logit_tokens else None
    flops = prompt_flops(config, tokens=prompt_tokens, before=before, logits=logits)
    note = "the first token rests on the least and the most that published engines reach on chips of this kind"
    # All weights are read for a prompt as for a token, however few operations it takes.
    least = decode_ms(opened, target, method, before + prompt_tokens)
    value, low, high = (max(least, 1e3 * flops / rate) for rate in (rates.value, rates.high, rates.low))
    return Interval(value=value, low=low, high=high), (note,)


def _probed_first_token(opened: Artifact, target: Target, prompt_tokens: int) -> Interval | None:
    calibration = target.calibration
    assert calibration is not None
    plan = opened.manifest.plan
    formats = {entry.group: entry.format for entry in plan.groups}
    anatomy = anatomy_of(model_config(opened.path))
    total_ns = 0
    for group in _multiplied(anatomy, opened):
        read = plan.prompt_format if plan.prompt_format and group.layer is not None else formats[group.name]
        cost = calibration.cost(read)
        if cost is None:
            return None
        total_ns += product_nanoseconds(group, cost, anatomy, prompt_tokens)
    rest_ms = rest_of_prompt_ms(
        anatomy,
        calibration,
        prompt_tokens,
        plan.prompt_attention,
        cache_bits=plan.cache_bits,
        copy=plan.prompt_format,
    )
    if rest_ms is None:
        return None
    value = total_ns * 1e-6 + rest_ms
    return Interval(value=value, low=value, high=value)


def resident_bytes(artifact: Path, opened: Artifact, target: Target) -> tuple[int, tuple[str, ...]]:
    """The plan's, with this target's runtime instead of that which it was planned for; or the plan's own.

    The latter with a note, where the folder no longer has the target that it was planned for.
    """
    planned = opened.manifest.plan.predicted_resident_bytes
    resolved = artifact / RESOLVED
    own = load_target(str(resolved)) if resolved.is_file() else None
    if own is None or digest_of(own.model_dump(mode="json")) != opened.manifest.target_digest:
        why = "is not there" if own is None else "is another than it was compiled for"
        return planned, (f"memory with the runtime of the artifact's own target: its {RESOLVED} {why}",)
    return planned - own.runtime_overhead_bytes + target.runtime_overhead_bytes, ()


def _within(value: float, known: HoldOut | None) -> Interval:
    if known is None:
        return Interval(value=value, low=value, high=value)
    return Interval(value=value, low=value * known.low_factor, high=value * known.high_factor)


def _notes(opened: Artifact, target: Target, method: Method, token_bytes: int) -> list[str]:
    notes = []
    offered = set(map(str, target.formats))
    foreign = sorted({str(group.format) for group in opened.manifest.plan.groups} - offered)
    if foreign:
        notes.append(f"not among the target's formats: {', '.join(foreign)}")
    if method == "probe":
        notes.append("the probe's model was not held out: no interval; docs/results/latency-model.md")
        if target.calibration is not None and target.calibration.disturbed:
            notes.append("the device was busy while it was probed")
    else:
        if token_bytes < _least_bytes():
            notes.append(
                f"a token reads {format_byte_size(token_bytes)}, less than in any published speed "
                f"({format_byte_size(round(_least_bytes()))}): what doesn't go with bytes is not counted, so "
                "speeds are the most that could be, and have no interval"
            )
        notes.append("calibrated by speeds of other engines than onnxruntime, most of them")
    return notes


def _least_bytes() -> float:
    """That a token reads in any published speed: below it methods were never compared with anything."""
    return min(speed.token_bytes for speed in published_speeds())


def known_targets() -> list[Target]:
    """Shipped targets of which enough is known for a prediction."""
    targets = [load_target(name) for name in shipped("targets")]
    return [
        target
        for target in targets
        if target.provider == "cpu" and (target.calibration or target.memory_bandwidth_bytes_per_second)
    ]
