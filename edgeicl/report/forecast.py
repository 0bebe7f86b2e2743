"""A forecast as text: sizes beside the budget, what they consist of, and the stages ahead."""

from __future__ import annotations

from collections.abc import Iterable

from edgeicl.report.tables import aligned
from edgeicl.specs.byte_size import format_byte_size
from edgeicl.specs.forecast import Forecast, StageAhead, TargetForecast


def forecast_text(forecast: Forecast) -> str:
    """Everything that is predicted, each target under its name."""
    parts = [_of_target(forecast.recipe, target) for target in forecast.targets]
    ahead = [("recipe", *row) for row in _stage_rows(forecast.stages)]
    ahead += [(found.target, *row) for found in forecast.targets for row in _stage_rows(found.stages)]
    parts.append(aligned(("stages of", "stage", "state", "about"), ahead))
    parts += [
        f"deviation: {entry.where}: {entry.what}: asked {entry.asked}, got {entry.got}: {entry.why}"
        for entry in (*forecast.deviations, *(each for found in forecast.targets for each in found.deviations))
    ]
    parts.append(_time_text(forecast))
    return "\n\n".join(parts)


def _of_target(recipe: str, found: TargetForecast) -> str:
    planned = [size for size in (found.given, found.best) if size is not None]
    sizes = [*planned, found.smallest, *found.uniform, found.largest]
    cached = found.smallest.cache_bits is None
    rows = [
        (
            entry.label,
            *([] if not cached else ["any"] if entry.cache_bits is None else [f"{entry.cache_bits} bits"]),
            format_byte_size(entry.artifact_bytes),
            format_byte_size(entry.resident_bytes),
            *([] if entry.decode_ms is None else [f"{entry.decode_ms:.3g} ms"]),
            *([] if entry.first_token_ms is None else [f"{entry.first_token_ms:.3g} ms"]),
            "" if entry.fits is None else "yes" if entry.fits else "no",
        )
        for entry in sizes
    ]
    timed = found.smallest.decode_ms is not None
    limits = [_limit(found.artifact_limit_bytes), _limit(found.resident_limit_bytes)]
    if timed:
        limits.append("none" if found.decode_limit_ms is None else f"{found.decode_limit_ms:g} ms")
    reads = found.smallest.first_token_ms is not None
    if reads:
        limits.append("none" if found.first_token_limit_ms is None else f"{found.first_token_limit_ms:g} ms")
    rows.append(("limit", *([""] if cached else []), *limits, ""))
    times = [*(["a token"] if timed else []), *([f"prompt of {found.prompt_tokens}"] if reads else [])]
    figures = [
        ("of the artifact", found.other_tensor_bytes, "tensors that no plan changes"),
        ("", found.other_file_bytes - found.prefix_bytes, "other files, at most"),
        ("", found.prefix_bytes, "what stands before a query, which is resident too"),
        ("", found.prompt_copy_bytes, "second copy of the layers, to read prompts with"),
        (
            "of the memory",
            found.kv_cache_bytes,
            f"key/value cache of the context, {found.cache_bits} bits a number",
        ),
        ("", found.activation_bytes, "activations of a prompt as long as the context"),
        ("", found.attention_score_bytes, "scores of attention to such a prompt, all at once"),
        ("", found.runtime_overhead_bytes, "runtime"),
    ]
    lines = [f"{name:<18}{format_byte_size(count):>10}  {what}" for name, count, what in figures if count]
    cache = ["cache"] if cached else []
    return "\n\n".join(
        [
            f"{recipe} for {found.target}: {_verdict(found)}",
            aligned(("plan", *cache, "artifact", "resident", *times, "fits"), rows),
            "\n".join(lines),
            f"{found.groups} weight groups; losses of a group in a format to measure: {found.to_measure}, "
            f"in the store: {found.measured}",
        ]
    )


def _verdict(found: TargetForecast) -> str:
    if found.given is not None:
        return "the given plan fits" if found.given.fits else "the given plan doesn't fit"
    return "no plan fits" if found.best is None else "fits"


def _stage_rows(stages: Iterable[StageAhead]) -> list[tuple[str, str, str]]:
    """One row for stages of one name and state that follow each other."""
    rows: dict[tuple[str, str], list[StageAhead]] = {}
    for entry in stages:
        rows.setdefault((entry.stage, entry.state), []).append(entry)
    return [
        (f"{name} ({len(alike)})" if len(alike) > 1 else name, state, _seconds(alike))
        for (name, state), alike in rows.items()
    ]


def _seconds(stages: Iterable[StageAhead]) -> str:
    known = [entry.seconds for entry in stages if entry.seconds is not None]
    return _duration(sum(known)) if known else ""


def _time_text(forecast: Forecast) -> str:
    """The whole build's time, and what it leaves out."""
    stages = [*forecast.stages, *(entry for found in forecast.targets for entry in found.stages)]
    total = _duration(sum(entry.seconds or 0.0 for entry in stages))
    unknown = [e.stage for e in stages if e.seconds is None and e.state != "in the store"]
    without = f" without {', '.join(dict.fromkeys(unknown))}, which nothing is known of" if unknown else ""
    return f"time of the build: about {total}{without}, from passes timed on this computer now"


def _duration(seconds: float) -> str:
    """In the unit that gives it one to three digits."""
    for unit, in_seconds in (("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * in_seconds:
            return f"{seconds / in_seconds:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _limit(limit_bytes: int | None) -> str:
    return "none" if limit_bytes is None else format_byte_size(limit_bytes)
