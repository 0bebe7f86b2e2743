"""Plan files that a person has edited: read, checked against the model and the target, all at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from edgeicl.errors import Problem, SpecError
from edgeicl.models.anatomy import WeightGroup
from edgeicl.quantize.offered_formats import offered_formats
from edgeicl.specs.document import read_document
from edgeicl.specs.loading import load_spec
from edgeicl.specs.nearest import one_of
from edgeicl.specs.quant_plan import ActivationBits, CacheBits, Format, QuantPlan

log = logging.getLogger(__name__)


def read_plan(
    path: Path,
    *,
    groups: Sequence[WeightGroup],
    formats: Sequence[Format],
    model_digest: str | None,
    cache_bits: Sequence[CacheBits] = (32,),
    activation_bits: ActivationBits = 32,
    cache_ruled_out: str = "",
) -> QuantPlan:
    """The plan in a file in JSON or YAML, with a format for each of `groups`.

    Sizes and importances in the file are of the plan it was edited from; they are not read. A plan
    that was made for other weights than those of `model_digest` (None: not known yet) is used all the same,
    with a warning. `cache_ruled_out`: why there are fewer `cache_bits` than the target's file has.

    Raises:
        SpecError: every problem of the file: no plan, unknown or missing groups, formats or bits of cache and
            activations that the target doesn't offer, or not to that group.
    """
    plan = load_spec(path, QuantPlan)
    document = read_document(path, kind="plan")
    by_name = {group.name: group for group in groups}
    problems = []
    for key, found_bits, offered in (
        ("cache_bits", plan.cache_bits, cache_bits),
        ("activation_bits", plan.activation_bits, (activation_bits,)),
    ):
        if found_bits not in offered:
            expected = f"expected {key} of the target: {', '.join(map(str, offered))}"
            expected += f" ({cache_ruled_out})" if key == "cache_bits" and cache_ruled_out else ""
            problems.append(Problem(key, f"{found_bits} bits", expected, document.line_of((key,))))
    for index, entry in enumerate(plan.groups):
        key = f"groups.{index}"
        line = document.line_of(("groups", str(index)))
        format_line = document.line_of(("groups", str(index), "format"))
        if entry.group not in by_name:
            expected = one_of(entry.group, by_name)
            problems.append(Problem(f"{key}.group", f"unknown group '{entry.group}'", expected, line))
            continue
        if entry.format not in formats:
            expected = f"expected a format of the target: {', '.join(map(str, formats))}"
            problems.append(Problem(f"{key}.format", f"{entry.group} as {entry.format}", expected, format_line))
        elif entry.format not in offered_formats(by_name[entry.group], formats):
            columns = by_name[entry.group].shape[1]
            found = f"block_size {entry.format.block_size} for {entry.group}"
            expected = "a number: tokens are looked up in it" if entry.format.by_row else ""
            expected = f"expected {expected or f'a divisor of its {columns} columns'}"
            problems.append(Problem(f"{key}.format", found, expected, format_line))
    missing = sorted(by_name.keys() - plan.formats().keys(), key=list(by_name).index)
    if missing:
        found = f"no entry for {', '.join(missing)}"
        problems.append(Problem("groups", found, "expected every weight group", document.line_of(("groups",))))
    if problems:
        raise SpecError(
            str(path), problems, next_step="correct these, or leave out quantize.plan to have one made"
        )
    if model_digest is not None and plan.model_digest != model_digest:
        log.warning("%s was made for other weights (%s) than these (%s)", path, plan.model_digest, model_digest)
    return plan
