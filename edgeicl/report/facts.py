"""The figures of a manifest as table rows, said the same way on a terminal, in Markdown and in HTML."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgeicl.specs.byte_size import format_byte_size
from edgeicl.specs.manifest import PREFIX_FILE, Deviation, LedgerEntry, Manifest
from edgeicl.specs.measurement import BenchResult, Conditions, Estimate, LengthTest, QueryCost
from edgeicl.specs.quant_plan import QuantPlan

LABELS_SHOWN = 8
"""More labels than these have no column each."""

DATA_NAMES = {"in_domain": "in-domain", "out_of_domain": "out-of-domain"}


@dataclass(frozen=True)
class Facts:
    """A table with its heading and what has to be known to read it."""

    heading: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    folded: tuple[tuple[str, ...], ...] = ()
    """Rows for those who ask for them."""


def percent(share: float) -> str:
    """0.9134 -> `91.3 %`."""
    return f"{100 * share:.1f} %"


def with_interval(estimate: Estimate) -> str:
    """`91.3 % [90.1, 92.5]`; the interval only where there is more than one value."""
    if len(estimate.values) < 2:
        return percent(estimate.mean)
    return f"{percent(estimate.mean)} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def method_facts(manifest: Manifest) -> Facts | None:
    """Accuracy of the method and of every baseline; None where nothing was evaluated."""
    evaluation = manifest.evaluation
    if evaluation is None or not evaluation.rows:
        return None
    labels = sorted({label for row in evaluation.rows for label in row.accuracy_by_label})
    if len(labels) > LABELS_SHOWN:
        labels = []
    rows = tuple(
        (
            row.method,
            DATA_NAMES[row.data],
            with_interval(row.accuracy),
            with_interval(row.balanced_accuracy),
            with_interval(row.macro_f1) if row.macro_f1 is not None else "",
            *(
                with_interval(row.accuracy_by_label[label]) if label in row.accuracy_by_label else ""
                for label in labels
            ),
            str(row.examples),
        )
        for row in evaluation.rows
    )
    note = []
    # A method that reads no demonstrations has one value: no interval, and so no confidence.
    spread = [row.accuracy for row in evaluation.rows if len(row.accuracy.values) > 1]
    if spread:
        seeds = max(len(accuracy.values) for accuracy in spread)
        confidence = 100 * spread[0].confidence
        note.append(f"Means over up to {seeds} demonstration seeds, with {confidence:.0f} % intervals.")
    if evaluation.deployed_seed is not None:
        note.append(f"The student of seed {evaluation.deployed_seed} is the one that was compiled.")
    if evaluation.query_cost is not None:
        note.append(query_cost_text(evaluation.query_cost))
    headers = ("method", "data", "accuracy", "balanced", "macro-F1", *labels, "examples")
    return Facts("Accuracy of the methods", headers, rows, " ".join(note))


def query_cost_text(cost: QueryCost) -> str:
    """What a query costs behind plain demonstrations, and behind what stands for them."""
    plain, behind = (f"{count / 1e6:,.1f}" for count in (cost.plain_flops, cost.prefix_flops))
    return (
        f"A query of {cost.query_tokens} tokens takes {plain} million floating-point operations behind "
        f"{cost.demonstrations} plain demonstrations ({cost.demonstration_tokens} tokens) and {behind} million "
        f"behind {cost.prefix_tokens} positions computed once: {percent(cost.saved_share)} fewer."
    )


def artifact_facts(manifest: Manifest) -> Facts | None:
    """The artifact beside the fp32 student it was made from."""
    if not manifest.accuracy:
        return None
    rows = tuple(
        (
            DATA_NAMES[entry.data],
            percent(entry.student),
            percent(entry.artifact),
            f"{100 * (entry.artifact - entry.student):+.2f}",
            "" if entry.limit_points is None else f"-{entry.limit_points:.2f}",
            str(entry.examples),
        )
        for entry in manifest.accuracy
    )
    headers = ("data", "fp32 student", "artifact", "change, points", "limit, points", "examples")
    return Facts("Accuracy of the artifact", headers, rows)


def size_facts(manifest: Manifest) -> Facts:
    """Bytes of the ledger by weight group, and of everything that belongs to none."""
    shapes = manifest.plan.formats()
    totals: dict[str, int] = {}
    for entry in manifest.ledger:
        key = _ledger_key(entry)
        totals[key] = totals.get(key, 0) + entry.bytes
    total = sum(totals.values())
    rows = [
        (key, str(shapes[key]) if key in shapes else "", f"{count:,}", f"{100 * count / max(total, 1):.1f} %")
        for key, count in totals.items()
    ]
    rows.append(("all", "", f"{total:,}", "100.0 %"))
    return Facts("Size ledger", ("part", "format", "bytes", "share"), tuple(rows))


def _ledger_key(entry: LedgerEntry) -> str:
    if entry.group is not None:
        return entry.group
    return f"{entry.file}, other tensors" if entry.file.endswith(".data") else entry.file


def artifact_bytes(manifest: Manifest) -> int:
    """Bytes of the artifact that a budget counts: the ledger's sum."""
    return sum(entry.bytes for entry in manifest.ledger)


def prefix_text(manifest: Manifest) -> str | None:
    """What stands before a query and what it takes, in one line; None where nothing does."""
    use = manifest.prefix
    if use is None:
        return None
    taken = sum(entry.bytes for entry in manifest.ledger if entry.file == PREFIX_FILE)
    what = {"tokens": "demonstrations", "vectors": "vectors"}[use.kind]
    sets = f"{len(use.tokens)} sets of " * (len(use.tokens) > 1)
    return f"{what}, {sets}{', '.join(map(str, use.tokens))} positions, {format_byte_size(taken)}"


def parity_facts(manifest: Manifest) -> Facts:
    """Each numerical comparison with the reference."""
    rows = tuple(
        (
            check.name,
            f"{check.max_abs_difference:.3g}",
            f"{check.tolerance:.3g}",
            f"{check.reference_scale:.3g}",
        )
        for check in manifest.parity
    )
    note = "Against an independent model that holds the same dequantized weights."
    headers = ("check", "largest difference of a logit", "allowed", "largest reference logit")
    return Facts("Parity", headers, rows, note)


def bench_facts(bench: BenchResult) -> Facts:
    """Speed and memory, with the ceiling that this machine's memory sets."""
    at = bench.conditions
    rows = [
        ("load", f"{bench.load_ms:.1f} ms"),
        (f"time to first token, {at.prompt_tokens} tokens", f"{bench.first_token_ms:.2f} ms"),
        ("prefill", f"{bench.prefill_tokens_per_second:,.0f} tokens/s"),
        ("peak resident memory", format_byte_size(bench.peak_rss_bytes)),
    ]
    if bench.decode_tokens_per_second is not None and bench.decode_latency is not None:
        latency = bench.decode_latency
        rows[3:3] = [
            ("decode", f"{bench.decode_tokens_per_second:,.1f} tokens/s"),
            (
                "decode, one token: p50, p90, p99",
                f"{latency.p50_ms:.3f}, {latency.p90_ms:.3f}, {latency.p99_ms:.3f} ms",
            ),
        ]
    if bench.prompt_flops is not None:
        saved = ""
        if bench.whole_prompt_flops is not None:
            share = 1 - bench.prompt_flops / bench.whole_prompt_flops
            saved = f"; {bench.whole_prompt_flops / 1e6:,.1f} with the prefix in it ({percent(share)} saved)"
        flops = f"{bench.prompt_flops / 1e6:,.1f} million operations{saved}"
        rows.append((f"prompt of {at.prompt_tokens} tokens, counted", flops))
    if (
        bench.decode_tokens_per_second is not None
        and bench.ceiling_tokens_per_second is not None
        and bench.bandwidth_bytes_per_second is not None
    ):
        reached = bench.decode_tokens_per_second / bench.ceiling_tokens_per_second
        rows.append(
            (
                "decode ceiling by bandwidth",
                f"{bench.ceiling_tokens_per_second:,.0f} tokens/s ({percent(reached)} reached)",
            )
        )
        rows.append(("read bandwidth of memory", f"{format_byte_size(bench.bandwidth_bytes_per_second)}/s"))
    if bench.token_bandwidth_bytes_per_second is not None:
        speed = f"{format_byte_size(bench.token_bandwidth_bytes_per_second)}/s"
        rows.append(("read bandwidth over the bytes of one token", speed))
    if bench.warm_load_ms is not None:
        cold = "again in another process" if bench.cold_load_ms is None else "from the file cache"
        rows.insert(1, (f"load {cold}", f"{bench.warm_load_ms:.1f} ms"))
    rows += [(test.name, _test_text(test)) for test in bench.tests]
    if bench.sustained is not None:
        rows.append((f"sustained for {bench.sustained.seconds / 60:.3g} minutes", _sustained_text(bench)))
    rows += _device_rows(bench)
    note = f"{bench.fidelity} on {conditions_text(at)}."
    note = " ".join([note, *(f"Note: {text}." for text in bench.notes)])
    return Facts("Benchmark", ("", bench.fidelity), tuple(rows), note)


def _test_text(test: LengthTest) -> str:
    spread = test.tokens_per_second_deviation
    return f"{test.tokens_per_second:,.1f}" + (f" ± {spread:,.1f}" if spread is not None else "") + " tokens/s"


def _sustained_text(bench: BenchResult) -> str:
    assert bench.sustained is not None
    windows = bench.sustained.windows
    speeds = [window.decode_tokens_per_second or window.prefill_tokens_per_second for window in windows]
    return (
        f"{speeds[0]:,.1f} tokens/s in the first of {len(windows)} parts, {speeds[-1]:,.1f} in the last "
        f"({percent(bench.sustained.last_over_first)}), {min(speeds):,.1f} in the slowest"
    )


def _device_rows(bench: BenchResult) -> list[tuple[str, str]]:
    """What is known of the device and how warm it got; nothing where nothing is."""
    rows = []
    device = bench.device
    if device is not None:
        named = [text for text in (device.model, device.soc) if text]
        if named or device.address != "local":
            rows.append(("device", ", ".join([device.address, *named])))
        rows += [("limit", text) for text in device.limits]
    governors = sorted({governor for state in bench.states for governor in state.governors})
    if governors:
        rows.append(("governor", ", ".join(governors)))
    heat = [max(state.temperatures_c.values()) for state in bench.states if state.temperatures_c]
    if heat:
        rows.append(
            ("hottest sensor", f"{heat[0]:.0f} °C before, {max(heat):.0f} at most, {heat[-1]:.0f} after")
        )
    throttled = [state.throttle_events for state in bench.states if state.throttle_events is not None]
    if throttled and throttled[-1] > throttled[0]:
        rows.append(("slowed by heat", f"{throttled[-1] - throttled[0]} times"))
    tools = {name: value for state in bench.states for name, value in state.told_by_tools.items()}
    return rows + [(name.replace("_", " "), str(value)) for name, value in tools.items()]


def conditions_text(at: Conditions) -> str:
    """What a measurement was taken on, as read back."""
    return (
        f"{at.machine}, {at.processor}: {at.threads} of {at.logical_cores} threads, "
        f"{at.runtime} {at.runtime_version} ({', '.join(at.providers)}), {at.prompt_tokens} prompt and "
        f"{at.decode_tokens} decoded tokens"
        + (f" behind a prefix of {at.prefix_tokens}" if at.prefix_tokens else "")
        + f", {at.repetitions} repetitions"
        + (f" or more, for {at.least_s:g} s," if at.least_s else "")
        + f" after {at.warmup_repetitions} to warm up"
    )


def deviation_facts(deviations: Iterable[Deviation]) -> Facts | None:
    """Everything asked for and not done."""
    rows = tuple((d.where, d.what, d.asked, d.got, d.why) for d in deviations)
    return Facts("Deviations", ("where", "what", "asked", "got", "why"), rows) if rows else None


def provenance_facts(manifest: Manifest) -> Facts:
    """What the artifact was made from, and with."""
    rows = [
        ("recipe", manifest.recipe_digest),
        ("target", manifest.target_digest),
        ("student weights", manifest.plan.model_digest),
        ("seed", str(manifest.seed)),
        *sorted(manifest.versions.items()),
    ]
    return Facts("Provenance", ("what", "digest or version"), tuple(rows))


def unquantized_text(plan: QuantPlan) -> str | None:
    """Where no group had to be quantized, that it is so."""
    if any(group.format.quantized for group in plan.groups):
        return None
    formats = " and ".join(sorted({str(group.format) for group in plan.groups}))
    copy = "" if plan.prompt_format is None else f"; prompts are read with their copy in {plan.prompt_format}"
    cache = "; keys and values are kept in 8-bit integers" if plan.cache_bits == 8 else ""
    return f"no weights were quantized: all fit the target in {formats}{copy}{cache}"
