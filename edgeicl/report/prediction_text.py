"""Predictions and their errors as text."""

from __future__ import annotations

from collections.abc import Sequence

from edgeicl.report.facts import percent
from edgeicl.report.tables import aligned
from edgeicl.specs.byte_size import format_byte_size
from edgeicl.specs.prediction import HoldOut, Interval, Prediction, Validation

_METHODS = {
    "specification": "its memory's specified bandwidth",
    "published": "published speeds of the same device",
    "probe": "a probe of the device",
}


def predictions_text(predictions: Sequence[Prediction]) -> str:
    """One line a target; everything in it is predicted."""
    rows = [
        (
            found.target,
            _interval(found.decode_tokens_per_second),
            str(found.depth_tokens),
            _interval(found.first_token_ms),
            str(found.prompt_tokens),
            format_byte_size(found.resident_bytes),
            found.method,
        )
        for found in predictions
    ]
    headers = ("target", "decode, tokens/s", "depth", "first token, ms", "prompt", "memory", "method")
    parts = [
        aligned(headers, rows),
        "All figures are predicted. In brackets, of decode: where 80 % of what was held out lay; of the first "
        "token: from the most to the least that published engines reach.",
    ]
    known = {found.hold_out.method: found.hold_out for found in predictions if found.hold_out is not None}
    parts += [f"{name}, from {_METHODS[name]}: {_error(error)}." for name, error in known.items()]
    by_note: dict[str, list[str]] = {}
    for found in predictions:
        for note in found.notes:
            by_note.setdefault(note, []).append(found.target)
    everywhere = len(predictions)
    parts += [
        f"{'all' if len(names) == everywhere else ', '.join(names)}: {note}" for note, names in by_note.items()
    ]
    return "\n".join(parts)


def validation_text(found: Validation) -> str:
    """Every method, what it errs by, and what was left out."""
    rows = [
        (
            entry.method,
            str(entry.points),
            str(entry.devices),
            str(entry.socs),
            percent(entry.median_error),
            percent(entry.p90_error),
            "" if entry.coverage is None else percent(entry.coverage),
        )
        for entry in found.hold_outs
    ]
    headers = ("method", "speeds", "devices", "chips", "median error", "p90", "within the 80 % interval")
    lines = [aligned(headers, rows), *(f"{entry.method}: {entry.what}." for entry in found.hold_outs)]
    lines.append(
        f"A probe of the same bits and any size: median error {percent(found.any_probe_median_error)}."
    )
    lines.append(f"With the chips' bandwidths exchanged: median error {percent(found.shuffled_median_error)}.")
    lines.append(
        f"A token of 1 GB reaches {percent(found.share)} of the specified bandwidth; the share goes with the "
        f"bytes to the power of {found.slope:.3f}."
    )
    left = ", ".join(f"{count} ({reason})" for reason, count in found.left_out.items())
    lines.append(f"Left out: {left}.")
    return "\n".join(lines)


def _interval(found: Interval | None) -> str:
    if found is None:
        return ""
    value, low, high = (_three_digits(number) for number in (found.value, found.low, found.high))
    if not found.low:
        return f"at most {value}"
    return value if low == high else f"{value} [{low}, {high}]"


def _three_digits(number: float) -> str:
    return f"{float(f'{number:.3g}'):,g}" if number < 1e6 else f"{number:.3g}"


def _error(found: HoldOut) -> str:
    return (
        f"median error {percent(found.median_error)}, p90 {percent(found.p90_error)} on {found.points} "
        f"published speeds of {found.socs} chips that were held out"
    )
